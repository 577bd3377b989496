# Real data that a Python package ships: monthly prices of large companies since 1990 (matplotlib's Stocks.csv).
import duckdb
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib import cbook

with cbook.get_sample_data("Stocks.csv") as file:
    prices = pd.read_csv(file, comment="#", parse_dates=["Date"]).dropna(subset=["IBM"])
print(f"{len(prices)} months, {prices.Date.min():%Y-%m} to {prices.Date.max():%Y-%m}")

growth = duckdb.sql(
    """
    with months as (unpivot prices on IBM, AAPL, MSFT, AMZN into name company value price)
    select company,
           round(arg_min(price, "Date"), 2) as first_price,
           round(arg_max(price, "Date"), 2) as last_price,
           round(arg_max(price, "Date") / arg_min(price, "Date"), 1) as times
    from months group by company order by times desc
    """
).df()
prices.set_index("Date")[["IBM", "AAPL", "MSFT"]].plot(logy=True, figsize=(6, 3), title="Monthly price, log scale")
plt.show()
growth

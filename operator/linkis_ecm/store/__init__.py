"""The database: Linkis's tables and our own. The only package that imports SQLAlchemy."""

"""Names of people and the users that they are in Linkis: one to one, turned back, the same in settings."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from linkis_ecm.__main__ import app
from linkis_ecm.engine.admission.limits import parse_limits
from linkis_ecm.model.formats import USER_MAX, USER_PATTERN, label_value
from linkis_ecm.model.users import is_linkis_user, is_login, linkis_user, login_of, user_name
from linkis_ecm.process.forms import USERS

# Linkis's console filters by these (ecrHistoryList).
LINKIS_FILTER = re.compile(r"^[a-zA-Z\d_\.]+$")
NAMES = {
    "hadoop": "hadoop", "Alice": "Alice", "alice": "alice", "a_b": "a_b", "jane.doe": "jane.doe", "_x": "_x",
    "jane-doe": "jane_x2ddoe", "jane@corp.com": "jane_x40corp.com", "j.o+tag@x.org": "j.o_x2btag_x40x.org",
    "CORP\\bob": "CORP_x5cbob", "o'neil": "o_x27neil", "a/b": "a_x2fb", "a,b": "a_x2cb", "Jane Doe": "Jane_x20Doe",
    "ünal": "_xc3_xbcnal", "张三": "_xe5_xbc_xa0_xe4_xb8_x89", ".hidden": "_x2ehidden", "..": "_x2e.",
    "user-": "user_x2d", "a_x2d": "a_x5fx2d", "x_abcdef": "x_x5fabcdef", "system:admin": "system_x3aadmin",
}  # fmt: skip
CLOSE = st.text(alphabet="_x25fdab0-.@é张", min_size=1, max_size=14)


@pytest.mark.parametrize("name", NAMES)
def test_a_companys_name_is_written_in_linkis_characters_and_turned_back(name: str) -> None:
    assert user_name(name) == NAMES[name]
    assert login_of(NAMES[name]) == name
    assert linkis_user(NAMES[name]) == NAMES[name]


@given(st.one_of(CLOSE, st.text(min_size=1)), st.one_of(CLOSE, st.text(min_size=1)))
def test_no_two_names_are_one_user_and_linkis_can_bear_each(one: str, other: str) -> None:
    first, second = user_name(one), user_name(other)
    assert (first == second) == (one == other)
    for name, user in ((one, first), (other, second)):
        assert is_linkis_user(user)
        assert len(user) <= USER_MAX
        assert re.fullmatch(USER_PATTERN, user)
        assert LINKIS_FILTER.match(user)
        who, _, what = label_value(user, "IDE", "python", "3.11").partition(",")
        assert (len(who.split("-")), len(what.split("-"))) == (2, 2)
        assert "/" not in user
        if name.isprintable() and not re.search(r"_[0-9a-f]{6,20}$", user):
            assert login_of(user) == name


@given(CLOSE)
def test_a_form_that_was_written_down_is_not_mapped_again(name: str) -> None:
    assert linkis_user(linkis_user(name)) == linkis_user(name)
    # A provider's name always is: a user could else take another's.
    if not is_linkis_user(name):
        assert user_name(user_name(name)) != user_name(name)


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "a\x00", "\ud800", "a" * 257])
def test_what_nobody_is_called_is_no_login(name: str) -> None:
    assert not is_login(name)


def test_settings_take_the_names_that_people_log_in_with() -> None:
    assert USERS.parse("jane-doe, jane@corp.com,root") == ("jane_x2ddoe", "jane_x40corp.com", "root")
    with pytest.raises(ValueError, match="no user name"):
        USERS.parse("jane\tdoe")
    limits = parse_limits('{"users": {"jane@corp.com": {"engines": 3}}}')
    assert limits.of_user("jane_x40corp.com").engines == 3


@pytest.mark.parametrize(
    ("name", "user"),
    [("hadoop", "hadoop"), ("corp/jane-doe", "corp_x2fjane_x2ddoe"), ("system:serviceaccount:a:b-c", "a.b_c_3767a2")],
)
def test_the_command_shows_the_user_that_a_name_is_in_linkis(name: str, user: str) -> None:
    answer = CliRunner().invoke(app, ["user", name])
    assert (answer.exit_code, answer.stdout) == (0, f"{user}\n")


def test_the_command_refuses_what_is_no_name() -> None:
    answer = CliRunner().invoke(app, ["user", " "])
    assert answer.exit_code == 2


DNS = st.text(alphabet="ab-", min_size=1, max_size=8)


@given(DNS, st.text(alphabet="ab-.", min_size=1, max_size=8), DNS, st.text(alphabet="ab-.", min_size=1, max_size=8))
def test_service_accounts_differ_without_their_short_hash(space: str, name: str, space_2: str, name_2: str) -> None:
    first, second = (user_name(f"system:serviceaccount:{both}") for both in (f"{space}:{name}", f"{space_2}:{name_2}"))
    assert re.fullmatch(r".+_[0-9a-f]{6}", first)
    assert (first[:-7] == second[:-7]) == ((space, name) == (space_2, name_2))


@pytest.mark.parametrize(
    "name",
    [
        "system:serviceaccount:team_a:x", "system:serviceaccount:a.b:c", "system:serviceaccount:Team:x", "a" * 41,
        "system:serviceaccount:a:b c", "system:serviceaccount:ü:b", f"system:serviceaccount:{'n' * 30}:{'s' * 30}",
    ],
)  # fmt: skip
def test_where_a_hash_decides_whose_name_it_is_it_has_80_bits(name: str) -> None:
    """Finding S44: two names with the same 24 bits were found in 51 s."""
    assert re.fullmatch(r".+_[0-9a-f]{20}", user_name(name))
    assert len(user_name(name)) <= USER_MAX
    assert user_name(user_name(name)) != user_name(name), "nobody logs in with it"

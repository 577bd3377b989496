"""What each account may do is what docs/security/accounts.md says: a new right is seen."""

from __future__ import annotations

import pytest

from e2e import accounts
from tools.testkit.cluster.installation import Installation
from tools.testkit.cluster.waiting import NAMESPACE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
# What nobody of ours needs, with any verb.
FORBIDDEN = (
    "serviceaccounts/token",
    "pods/exec",
    "pods/attach",
    "pods/portforward",
    "roles",
    "rolebindings",
)


def test_each_account_may_do_what_the_page_says(installation: Installation) -> None:
    found = accounts.seen()
    assert accounts.page(found) == accounts.PAGE.read_text(), "see it by `python -m e2e.accounts`; is the right meant?"
    for (account, where), rights in found.items():
        assert not [right for right in rights if right[1] in FORBIDDEN], (account, where)
        assert not [right for right in rights if "*" in right], (account, where)
        # The operator gets a Secret that an engine's variable names, where engines are (docs/design/warm.md).
        read = {right[3] for right in rights if right[:2] == ("", "secrets")}
        assert not read or (account, where, read) == ("operator", accounts.HERE, {"get"}), (
            account,
            where,
        )


def test_an_engine_has_no_token_of_its_account(installation: Installation) -> None:
    default = accounts.service_account("default", NAMESPACE)
    assert accounts.may(default, NAMESPACE) == accounts.may(accounts.service_account("nobody", NAMESPACE), NAMESPACE)

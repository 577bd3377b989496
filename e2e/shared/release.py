"""The values of the e2e tests' releases, and a release with other ones. Must not know what a test does with it."""

from __future__ import annotations

from tools.testkit.cluster.installation import OF_THE_CLUSTER, Installation, install
from tools.testkit.cluster.waiting import FIRST, RELEASE_NAMESPACE

# Of the tests of network policies: a namespace without policies, and a place outside that engines may reach (RFC 5737).
FREE, LISTED, LISTED_PORT = "ecm-e2e-free", "198.51.100.7", 8080
SCRAPER, DATABASE_LABELS = {"app": "prometheus"}, {"app": "database"}
NAMED = r"namespaceSelector.matchLabels.kubernetes\.io/metadata\.name"


def settings_of(namespace: str) -> tuple[str, ...]:
    """The values of a release of these tests: of the first one, or of one beside it."""
    return (
        "auth.admins={root}",
        "auth.kubernetes.enabled=true",
        # Who reaches engines that are plain processes.
        f"engines.processClients[0].{NAMED}={namespace}",
        "engines.processClients[0].podSelector.matchLabels.app=process-client",
        # Users at a limit, and CPU and memory by engine, for the dashboards.
        "limits.users.crowded.engines=1",
        "limits.users.lia.engines=2",
        "limits.users.cai.cpu=1",
        "limits.users.mia.memory=1Gi",
        "metrics.engines=50",
        # Of what the policies let through: a scraper, a database, and one place outside.
        f"networkPolicy.metricsFrom[0].{NAMED}={FREE}",
        f"networkPolicy.metricsFrom[0].podSelector.matchLabels.app={SCRAPER['app']}",
        f"networkPolicy.database.podSelector.matchLabels.app={DATABASE_LABELS['app']}",
        f"networkPolicy.egress[0].cidr={LISTED}/32",
        f"networkPolicy.egress[0].ports[0].port={LISTED_PORT}",
        "networkPolicy.egress[0].ports[0].protocol=TCP",
        # A node of two cores has a dozen engines and the parts of some releases at a time, and most of them wait. None
        # is to lack a node because the others asked for half a core each, as they do by the chart's values.
        "operator.resources.requests.cpu=50m",
        "gateway.resources.requests.cpu=50m",
        *(("engines.python.resources.cpu=100m",) if namespace == FIRST else OF_THE_CLUSTER),
    )


def upgrade(*settings: str) -> Installation:
    """The release of this process with more values, or anew; the releases beside it stay."""
    return install(RELEASE_NAMESPACE, *settings_of(RELEASE_NAMESPACE), *settings, beside=True)

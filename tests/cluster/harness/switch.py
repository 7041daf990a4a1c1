"""The wires between the machines, and what can be wrong with them.

The control plane's machine holds a bridge; each node has one wire to it. Routes are fixed: each node's pods are behind
the node's address.
"""

from .process import Failed, quiet

BRIDGE_ADDRESS = "10.90.0.1"
BITS = 24
FAULTS = "pitcrew_faults"  # the nftables table of a node's injected faults


class Switch:
    def __init__(self, machine):
        self.machine = machine  # where the bridge is

    def create(self):
        self._ip("link", "add", "switch", "type", "bridge")
        self._ip("address", "add", f"{BRIDGE_ADDRESS}/{BITS}", "dev", "switch")
        self._ip("link", "set", "switch", "up")

    def plug(self, node):
        """Makes the node's wire, with addresses and routes at both ends."""
        wire = self._wire(node)
        # A fixed hardware address, so that nobody remembers the one before the power-cut.
        self._ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "address", f"02:90:00:00:00:{10 + node.number:02x}",
                 "netns", str(node.machine.init()))
        self._ip("link", "set", wire, "master", "switch", "up")
        self._ip("route", "replace", node.pods, "via", node.address)
        inside = node.machine.do
        inside("ip", "address", "add", f"{node.address}/{BITS}", "dev", "eth0")
        inside("ip", "link", "set", "eth0", "up")
        inside("ip", "route", "add", "default", "via", BRIDGE_ADDRESS)
        inside("sysctl", "-qw", "net.ipv4.ip_forward=1")
        for other in node.cluster.nodes():
            if other.number != node.number:
                inside("ip", "route", "replace", other.pods, "via", other.address)
                if other.machine.is_on() and other.number < node.number:
                    other.machine.do("ip", "route", "replace", node.pods, "via", node.address)

    def pull(self, node):
        """The wire's end at the switch goes down: nothing leaves or reaches the node, and nothing is told so."""
        self._ip("link", "set", self._wire(node), "down")

    def push(self, node):
        self._ip("link", "set", self._wire(node), "up")

    def unplug(self, node):
        try:
            self._ip("link", "delete", self._wire(node))
        except Failed:
            pass  # gone with the machine

    def block(self, node, addresses):
        """Packets between the node's pods and those addresses are dropped, in both directions; all else passes."""
        words = ", ".join(addresses)
        node.machine.do("nft", "-f", "-", text=f"""
table ip {FAULTS} {{
  chain forward {{
    type filter hook forward priority -10; policy accept;
    ip saddr {node.pods} ip daddr {{ {words} }} drop
    ip daddr {node.pods} ip saddr {{ {words} }} drop
  }}
}}
""")

    def unblock(self, node):
        node.machine.do("nft", "delete", "table", "ip", FAULTS, check=False)

    @staticmethod
    def _wire(node):
        return f"wire-{node.number}"

    def _ip(self, *words):
        quiet(*self.machine.inside(["ip", *words], only_network=True))


class HostWire:
    """A wire between this machine and the switch's, so that kubectl and crane reach the cluster. Its two addresses are of
    a block that is for documentation (192.0.2.0/24), which nobody routes; clusters side by side take different ones."""

    def __init__(self, machine, index):
        self.machine = machine
        self.name = f"pitcrew-{index}"
        self.outside = f"192.0.2.{4 * index + 1}"
        self.inside = f"192.0.2.{4 * index + 2}"

    @classmethod
    def free_index(cls):
        taken = quiet("ip", "-o", "link")
        for index in range(60):
            if f" pitcrew-{index}" not in taken.replace("@", " ").replace(":", " "):
                return index
        raise Failed("60 clusters are up; end one with tests/cluster/cluster down")

    def create(self):
        quiet("ip", "link", "add", self.name, "type", "veth", "peer", "name", "host", "netns", self.machine.init())
        quiet("ip", "address", "add", f"{self.outside}/30", "dev", self.name)
        quiet("ip", "link", "set", self.name, "up")
        for words in (["address", "add", f"{self.inside}/30", "dev", "host"], ["link", "set", "host", "up"]):
            quiet(*self.machine.inside(["ip", *words], only_network=True))

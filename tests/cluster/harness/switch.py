"""The wires between the machines, and what can be wrong with them.

The control plane's machine holds a bridge; each node has one wire to it. Routes and hardware addresses are fixed: each
node's pods are behind the node's address, and a node that is gone is silent as it is in a cloud's network, where nobody
answers "no such host" for it.
"""

import ipaddress
import re

from .process import Failed, quiet

BRIDGE_ADDRESS = "10.90.0.1"
BITS = 24
FAULTS = "pitcrew_faults"  # the nftables table of a node's injected faults


class Switch:
    def __init__(self, machine):
        self.machine = machine  # where the bridge is

    def create(self):
        self._ip("link", "add", "switch", "address", _hardware(0), "type", "bridge")
        self._ip("address", "add", f"{BRIDGE_ADDRESS}/{BITS}", "dev", "switch")
        self._ip("link", "set", "switch", "up")

    def plug(self, node):
        """Makes the node's wire, with addresses and routes at both ends."""
        wire = self._wire(node)
        self._ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "address", _hardware(node.number), "netns", str(node.machine.init()))
        self._ip("link", "set", wire, "master", "switch", "up")
        self._ip("neighbour", "replace", node.address, "lladdr", _hardware(node.number), "nud", "permanent", "dev", "switch")
        self._ip("route", "replace", node.pods, "via", node.address)
        inside = node.machine.do
        inside("ip", "address", "add", f"{node.address}/{BITS}", "dev", "eth0")
        inside("ip", "link", "set", "eth0", "up")
        inside("ip", "route", "add", "default", "via", BRIDGE_ADDRESS)
        inside("sysctl", "-qw", "net.ipv4.ip_forward=1")
        inside("ip", "neighbour", "replace", BRIDGE_ADDRESS, "lladdr", _hardware(0), "nud", "permanent", "dev", "eth0")
        for other in node.cluster.nodes():
            if other.number != node.number:
                inside("ip", "neighbour", "replace", other.address, "lladdr", _hardware(other.number), "nud", "permanent", "dev", "eth0")
                inside("ip", "route", "replace", other.pods, "via", other.address)

    def pull(self, node):
        """The switch drops all that leaves or would reach the node; the node isn't told, as if a wire far away were cut."""
        self._port(node, "disabled")

    def push(self, node):
        self._port(node, "forwarding")

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

    def _port(self, node, state):
        number = {"disabled": "0", "forwarding": "3"}[state]
        quiet(*self.machine.inside(["bridge", "link", "set", "dev", self._wire(node), "state", number], only_network=True))

    def _ip(self, *words):
        quiet(*self.machine.inside(["ip", *words], only_network=True))


def _hardware(number):
    return f"02:90:00:00:00:{number:02x}"


class HostWire:
    """A wire between this machine and the switch's, so that kubectl and crane reach the cluster. Its two addresses are of
    a block that is for documentation, unless this machine uses it; clusters side by side take different ones."""

    BLOCKS = ("198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/24")

    def __init__(self, machine, network):
        self.machine = machine
        network = ipaddress.ip_network(network)
        self.outside, self.inside = (str(address) for address in network.hosts())
        self.name = f"pc{self.outside.replace('.', '')}"[:15]

    @classmethod
    def free_network(cls):
        """Four addresses that this machine knows no route to but the default one."""
        words = quiet("ip", "-4", "route", "show", "table", "all").split()
        known = [ipaddress.ip_network(word, strict=False) for word in words if re.fullmatch(r"\d+\.\d+\.\d+\.\d+(/\d+)?", word)]
        for block in cls.BLOCKS:
            for network in ipaddress.ip_network(block).subnets(new_prefix=30):
                if not any(network.overlaps(other) for other in known):
                    return str(network)
        raise Failed(f"this machine uses all of {' '.join(cls.BLOCKS)}; end a cluster with tests/cluster/cluster down")

    def remove(self):
        if f" {self.name}@" in quiet("ip", "-o", "link"):
            quiet("ip", "link", "delete", self.name, check=False)

    def create(self):
        quiet("ip", "link", "add", self.name, "type", "veth", "peer", "name", "host", "netns", self.machine.init())
        quiet("ip", "address", "add", f"{self.outside}/30", "dev", self.name)
        quiet("ip", "link", "set", self.name, "up")
        for words in (["address", "add", f"{self.inside}/30", "dev", "host"], ["link", "set", "host", "up"]):
            quiet(*self.machine.inside(["ip", *words], only_network=True))

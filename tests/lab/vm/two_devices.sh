# A machine alone: its veth1 becomes a second RDMA device, rxe1 at 192.0.2.2, and what goes from one of the two addresses to
# the other takes the wire between them instead of the short way within the kernel. `two_devices.sh again` repairs the
# routes when an interface has been down.
set -e
if [ "$1" != again ]; then
	ip address add 192.0.2.2/24 dev veth1
	for name in all veth0 veth1; do
		echo 0 >/proc/sys/net/ipv4/conf/$name/rp_filter
		echo 1 >/proc/sys/net/ipv4/conf/$name/accept_local
	done
	ip rule add pref 300 lookup local
	ip rule add pref 100 iif lo to 192.0.2.2 lookup 102 # iif lo: what is sent from here
	ip rule add pref 101 iif lo to 192.0.2.1 lookup 101
	ip rule del pref 0
	rdma link add rxe1 type rxe netdev veth1
fi
ip route replace 192.0.2.2 dev veth0 src 192.0.2.1 table 102
ip route replace 192.0.2.1 dev veth1 src 192.0.2.2 table 101

#!/bin/sh
# Install the Debian packages that building and testing need, where they are missing: as root directly, else by sudo.
# Usage: system_packages.sh build|test|lab|bench DIRECTORY
# DIRECTORY receives what is only unpacked: in rdma-core/ the tests of rdma-core, where the system refuses files under
# /usr/share/doc (as slim images do); in lab/ the kernel and the shell of the lab's virtual machine, for the word `lab`.
set -eu

what=$1
extracted=$2

build="gcc libc6-dev python3-dev python3-venv"
test="$build clang libclang-rt-dev libibverbs-dev librdmacm-dev python3-pyverbs etcd-server openssl valgrind iproute2
curl iperf3 memcached nginx-light postgresql openssh-client openssh-server redis-server redis-tools rsync socat sockperf wrk"
lab="$test qemu-system-x86 iproute2 ibverbs-providers"
bench="$test libfabric-bin libfabric-dev libucx-dev ucx-utils iperf3"
case $what in
build) packages=$build ;;
test) packages=$test ;;
lab) packages=$lab ;;
bench) packages=$bench ;;
*) echo "system_packages.sh: '$what' is none of build, test, lab, bench" >&2; exit 2 ;;
esac

missing=
for package in $packages; do
	if ! dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then
		missing="$missing $package"
	fi
done

if [ -n "$missing" ]; then
	if [ "$(id -u)" = 0 ]; then
		as_root=
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		as_root=sudo
	else
		echo "ffverbs needs these Debian packages, and neither root nor sudo is here to install them:$missing" >&2
		exit 1
	fi
	echo "installing system packages:$missing"
	$as_root apt-get update -qq
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

# unpack FOLDER PACKAGE: fetch a package and unpack it there without installing it.
unpack() {
	mkdir -p "$1"
	echo "unpacking $2 into $1"
	(cd "$1" && apt-get download -qq -o APT::Sandbox::User=root "$2" && dpkg-deb -x "$2"_*.deb . && rm "$2"_*.deb)
}

if [ "$what" != build ] && [ ! -e /usr/share/doc/rdma-core/tests ] &&
	[ ! -e "$extracted/rdma-core/usr/share/doc/rdma-core/tests" ]; then
	unpack "$extracted/rdma-core" python3-pyverbs
fi

if [ "$what" = lab ] && [ ! -e "$extracted/lab/complete" ]; then
	kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -1)
	if [ -z "$kernel" ]; then
		echo "system_packages.sh: the package lists name no kernel for linux-image-amd64: run apt-get update" >&2
		exit 1
	fi
	rm -rf "$extracted/lab"
	unpack "$extracted/lab" "$kernel"
	unpack "$extracted/lab" busybox-static
	touch "$extracted/lab/complete"
fi

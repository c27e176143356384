/* SPDX-License-Identifier: MIT
 *
 * See rdma_device.h.
 */
#include "wire/rdma_device.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/error.h"

#define MOST_PORTS 4u

/* ---- the GID of an address ------------------------------------------------------------------------------------------------- */

static bool gid_of(const char *address, uint8_t gid[16])
{
	struct in_addr v4;

	if (inet_pton(AF_INET, address, &v4) == 1) {
		memset(gid, 0, 10);
		gid[10] = gid[11] = 0xff;
		memcpy(gid + 12, &v4, 4);
		return true;
	}
	return inet_pton(AF_INET6, address, gid) == 1;
}

/* ---- choosing ---------------------------------------------------------------------------------------------------------------- */

struct search {
	const struct ffv_ibverbs *verbs;
	const struct ffv_rdma_options *options;
	uint8_t wanted[16];           /* GID of the host's address */
	bool has_wanted;
	struct ffv_rdma_device best;  /* context NULL: none yet */
	char why_not[320];            /* of the last device that was looked at */
};

/* The GID at `index` of a port may be used for RoCE v2; says why not. */
static bool look_at_index(struct search *search, struct ffv_rdma_device *device, uint32_t index)
{
	struct real_gid_entry entry = { 0 };
	int rc = search->verbs->query_gid_ex(device->context, device->port, index, &entry, 0, sizeof entry);

	if (rc)
		snprintf(search->why_not, sizeof search->why_not,
			 "%s port %u has no GID at index %u: ibv_devinfo -v lists them; change or drop --rdma-gid-index",
			 device->name, device->port, index);
	else if (entry.gid_type != REAL_GID_ROCE_V2)
		snprintf(search->why_not, sizeof search->why_not,
			 "GID index %u of %s port %u is not of RoCE v2: change or drop --rdma-gid-index", index, device->name,
			 device->port);
	else {
		device->gid_index = index;
		memcpy(device->gid, entry.gid, 16);
		return true;
	}
	return false;
}

static bool look_for_address(struct search *search, struct ffv_rdma_device *device, uint32_t count)
{
	for (uint32_t i = 0; i < count && search->has_wanted; i++) {
		struct real_gid_entry entry = { 0 };
		if (search->verbs->query_gid_ex(device->context, device->port, i, &entry, 0, sizeof entry) ||
		    entry.gid_type != REAL_GID_ROCE_V2 || memcmp(entry.gid, search->wanted, 16))
			continue;
		device->gid_index = i;
		memcpy(device->gid, entry.gid, 16);
		return true;
	}
	snprintf(search->why_not, sizeof search->why_not,
		 "%s has no RoCE v2 GID for %s: give its network interface that address, or say --host-ip or --rdma-gid-index",
		 device->name, search->options->host_address);
	return false;
}

/* 1 = this port it is, 0 = not, -1 = there is no such port. */
static int look_at_port(struct search *search, struct ffv_rdma_device *device)
{
	struct real_port_attr attr = { 0 };

	if (search->verbs->query_port(device->context, device->port, &attr))
		return -1;
	device->link_layer = attr.link_layer == REAL_LINK_ETHERNET ? REAL_LINK_ETHERNET : REAL_LINK_INFINIBAND;
	device->lid = attr.lid;
	device->mtu = attr.active_mtu;
	if (attr.state != REAL_PORT_ACTIVE) {
		snprintf(search->why_not, sizeof search->why_not, "port %u of %s is down: is its network interface up?",
			 device->port, device->name);
		return 0;
	}
	if (device->link_layer == REAL_LINK_INFINIBAND) {
		device->gid_index = search->options->gid_index < 0 ? 0 : (uint32_t)search->options->gid_index;
		return !search->best.context || search->options->device[0]; /* RoCE with the very address is better */
	}
	if (search->options->gid_index >= 0)
		return look_at_index(search, device, (uint32_t)search->options->gid_index);
	return look_for_address(search, device, (uint32_t)attr.gid_tbl_len);
}

/* True: no better one can be found. */
static bool look_at_device(struct search *search, struct real_device *listed)
{
	struct ffv_rdma_device device = { .verbs = search->verbs };

	snprintf(device.name, sizeof device.name, "%s", search->verbs->get_device_name(listed));
	device.context = search->verbs->open_device(listed);
	if (!device.context) {
		snprintf(search->why_not, sizeof search->why_not, "%s cannot be opened (%s): check /dev/infiniband", device.name,
			 strerror(errno));
		return false;
	}
	for (device.port = 1; device.port <= MOST_PORTS; device.port++) {
		int found = look_at_port(search, &device);
		if (found < 0)
			break;
		if (found == 0)
			continue;
		if (search->best.context)
			search->verbs->close_device(search->best.context);
		search->best = device;
		return device.link_layer == REAL_LINK_ETHERNET || search->options->device[0];
	}
	search->verbs->close_device(device.context);
	return false;
}

static int choose(struct search *search)
{
	int count = 0;
	struct real_device **list = search->verbs->get_device_list(&count);
	bool named = false, done = false;

	for (int i = 0; list && i < count && !done; i++) {
		const char *name = search->verbs->get_device_name(list[i]);
		if (search->options->device[0] && strcmp(name, search->options->device))
			continue;
		named = true;
		done = look_at_device(search, list[i]);
	}
	if (list)
		search->verbs->free_device_list(list);
	if (search->best.context)
		return 0;
	if (!count)
		return ffv_fail(ENODEV, "there is no RDMA device here");
	if (!named)
		return ffv_fail(ENODEV, "there is no RDMA device %s here: rdma link show lists them", search->options->device);
	return ffv_fail(ENODEV, "%s", search->why_not);
}

/* ---- removal ------------------------------------------------------------------------------------------------------------------- */

/* The kernel's own place for the device's file: it goes before the news of that. */
static bool has_file(const struct ffv_rdma_device *device)
{
	struct stat stat;
	char path[64];

	if (fstat(device->context->cmd_fd, &stat))
		return false;
	snprintf(path, sizeof path, "/sys/dev/char/%u:%u", major(stat.st_rdev), minor(stat.st_rdev));
	return !access(path, F_OK);
}

static int open_uevents(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);

	if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

bool ffv_rdma_device_is_removed(const struct ffv_rdma_device *device)
{
	char news[64]; /* what it is about does not matter: few come */
	bool any = false;

	/* Too many at once (ENOBUFS) are news, too. */
	while (device->uevents >= 0 && (recv(device->uevents, news, sizeof news, MSG_TRUNC) >= 0 || errno == ENOBUFS))
		any = true;
	return any && !has_file(device);
}

/* ---- public ---------------------------------------------------------------------------------------------------------------------- */

int ffv_rdma_device_open(const struct ffv_rdma_options *options, struct ffv_rdma_device *out)
{
	struct search search = { .options = options };
	int rc = ffv_ibverbs_load(&search.verbs), uevents = rc ? -1 : open_uevents(); /* before the device: no news is missed */

	search.has_wanted = gid_of(options->host_address, search.wanted);
	if (!rc)
		rc = choose(&search);
	if (uevents >= 0 && (rc || !has_file(&search.best))) {
		close(uevents);
		uevents = -1;
	}
	if (rc)
		return rc;
	search.best.uevents = uevents;
	search.best.pd = search.verbs->alloc_pd(search.best.context);
	if (!search.best.pd) {
		rc = ffv_fail_errno(errno, "no protection domain on %s", search.best.name);
		ffv_rdma_device_close(&search.best);
		return rc;
	}
	*out = search.best;
	return 0;
}

void ffv_rdma_device_close(struct ffv_rdma_device *device)
{
	if (!device->context)
		return;
	if (device->pd)
		device->verbs->dealloc_pd(device->pd);
	device->verbs->close_device(device->context);
	device->context = NULL;
	if (device->uevents >= 0)
		close(device->uevents);
}

struct real_mr *ffv_rdma_register(const struct ffv_rdma_device *device, void *at, size_t bytes, int access)
{
	struct real_mr *mr = device->verbs->reg_mr(device->pd, at, bytes, access);
	struct rlimit limit = { 0 };
	int error = errno;

	if (mr)
		return mr;
	if (error == ENOMEM && !getrlimit(RLIMIT_MEMLOCK, &limit) && limit.rlim_cur != RLIM_INFINITY)
		ffv_fail(ENOMEM, "%s cannot register %zu KiB: at most %llu KiB may be locked; raise it (ulimit -l, LimitMEMLOCK=)",
			 device->name, bytes >> 10, (unsigned long long)limit.rlim_cur >> 10);
	else
		ffv_fail_errno(error, "%s cannot register %zu KiB", device->name, bytes >> 10);
	return NULL;
}

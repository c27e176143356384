/* What a test asks of the pretended libibverbs beyond verbs (fake_ibverbs.c); found in it by their names with dlsym. */
#ifndef FFV_TESTS_WIRE_FAKE_IBVERBS_H
#define FFV_TESTS_WIRE_FAKE_IBVERBS_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct fake_counts {
	uint32_t regions;             /* registered now */
	uint32_t queue_pairs;
	uint64_t writes, reads;       /* one-sided operations that were carried out */
	uint64_t written, read;       /* bytes of them */
	uint64_t refused;             /* that named memory which they may not touch */
	uint32_t held;                /* queue pairs whose next operation waits for release */
};

#define FAKE_RC 1u                    /* queue pairs */
#define FAKE_ROCE_V2 2u               /* all GIDs are of RoCE v1 */
#define FAKE_ETHERNET 4u              /* all ports are InfiniBand ones, of LIDs 10 and 11 */
#define FAKE_ETHERNET_1 8u            /* the second device's is */

struct fake_calls {
	void (*count)(struct fake_counts *out);
	/* One-sided operations wait, and what is posted behind them, until they are let go. */
	void (*hold)(void);
	void (*release)(void);
	/* The same of SENDs, too. */
	void (*hold_all)(void);
	/* Every queue pair fails, with what it has under way. */
	void (*break_all)(void);
	/* No more than so many bytes may be registered, all in all. 0: no limit. */
	void (*limit)(uint64_t bytes);
	/* There are devices (again), or none. */
	void (*plug)(int there);
	/* The devices are without some of: FAKE_... */
	void (*lack)(unsigned what);
};

/* NULL: FFVERBS_LIBIBVERBS names another library. */
static inline const struct fake_calls *fake_find(void)
{
	void *library = dlopen(getenv("FFVERBS_LIBIBVERBS"), RTLD_NOW | RTLD_LOCAL);

	return library ? dlsym(library, "fake_calls") : NULL;
}

#endif

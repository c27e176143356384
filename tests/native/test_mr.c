/* Memory regions: what may be registered, what the key table then says, re-registration, and giving back. */
#include <errno.h>
#include <malloc.h>
#include <sys/mman.h>

#include "apart.h"
#include "check.h"
#include "child.h"
#include "engine/keys.h"
#include "opened.h"
#include "verbs/device.h"

#define PAGE 4096u
#define RW (FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_WRITE | FFV_ACCESS_REMOTE_READ)

static struct ffv_context *ctx;
static struct ffv_pd *pd;

static uint8_t *map_pages(size_t pages, int protection)
{
	void *memory = mmap(NULL, pages * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(memory != MAP_FAILED);
	return memory;
}

static struct ffv_key_shm *entry_of(const struct ffv_mr *mr)
{
	return &ctx->view.arena->keys[FFV_KEY_INDEX(mr->rkey)];
}

/* May `access` to [addr, addr + length) be had with this key in protection domain p; and where is it? */
static bool resolves(uint32_t key, const struct ffv_pd *p, uint64_t addr, uint32_t length, uint32_t access,
		     uint64_t *va)
{
	struct ffv_segment segment;

	if (!ffv_key_resolve(&ctx->view, key, p->id, 0, addr, length, access, &segment))
		return false;
	if (va)
		*va = segment.va;
	return true;
}

/* Is the page at addr shared with peers? */
static bool is_mirrored(const void *addr)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long long first, end;
	char line[512];
	bool found = false;

	CHECK(maps);
	while (fgets(line, sizeof line, maps))
		if (sscanf(line, "%llx-%llx", &first, &end) == 2 && first <= (uintptr_t)addr && (uintptr_t)addr < end)
			found = strstr(line, "ffverbs-mirror");
	fclose(maps);
	return found;
}

static struct ffv_mr *reg(void *addr, size_t length, uint32_t access)
{
	struct ffv_mr *mr;

	CHECK_OK(ffv_reg_mr(pd, addr, length, (uintptr_t)addr, access, &mr));
	return mr;
}

static void test_bad_input(void)
{
	uint8_t *memory = map_apart(3 * PAGE);
	uint8_t *read_only = map_pages(1, PROT_READ);
	uint8_t *unreadable = map_pages(1, PROT_NONE);
	struct ffv_mr *const untouched = (void *)(uintptr_t)0x1234, *mr = untouched;

	CHECK_EQ(munmap(memory + PAGE, PAGE), 0);
	const struct {
		uint8_t *addr;
		size_t length;
		uint64_t iova;
		uint32_t access;
		int err;
		const char *word;
	} table[] = {
		{memory, PAGE, 0, FFV_ACCESS_REMOTE_WRITE, EINVAL, "LOCAL_WRITE"},
		{memory, PAGE, 0, FFV_ACCESS_REMOTE_ATOMIC | FFV_ACCESS_REMOTE_READ, EINVAL, "LOCAL_WRITE"},
		{memory, PAGE, 0, 1u << 30, EINVAL, "unknown"},
		{memory, PAGE, 0, FFV_ACCESS_LOCAL_WRITE | 1u << 12, EINVAL, "0x1000"},
		{memory, SIZE_MAX, 0, 0, EINVAL, "more than"},
		{memory, (1ull << 47) + 1, 0, 0, EINVAL, "more than"},
		{(uint8_t *)UINTPTR_MAX - 10, 100, 0, 0, EINVAL, "64 bits"},
		{memory, PAGE, UINT64_MAX - 10, 0, EINVAL, "iova"},
		{NULL, 1, 0, 0, EFAULT, "cannot be registered"},
		{(uint8_t *)(1ull << 47), 1, 0, 0, EFAULT, "cannot be registered"},
		{memory, 3 * PAGE, 0, 0, EFAULT, "no memory"},
		{memory + PAGE - 1, 2, 0, 0, EFAULT, "no memory"},
		{read_only, PAGE, 0, FFV_ACCESS_LOCAL_WRITE, EACCES, "read-only"},
		{unreadable, PAGE, 0, 0, EACCES, "cannot be read"},
	};
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		fprintf(stderr, "bad input %zu\n", i);
		CHECK_FAIL(ffv_reg_mr(pd, table[i].addr, table[i].length, table[i].iova, table[i].access, &mr),
			   table[i].err, table[i].word);
		CHECK(mr == untouched);
	}
	CHECK_FAIL(ffv_alloc_mr(pd, PAGE, FFV_ACCESS_REMOTE_WRITE, &mr), EINVAL, "LOCAL_WRITE");
	CHECK_FAIL(ffv_alloc_mr(pd, SIZE_MAX, 0, &mr), EINVAL, "more than");
	CHECK_FAIL(ffv_alloc_mr(pd, PAGE, FFV_ACCESS_HUGETLB, &mr), EOPNOTSUPP, "huge");
	CHECK_FAIL(ffv_reg_mr(NULL, memory, PAGE, 0, 0, &mr), EINVAL, "");
	CHECK_FAIL(ffv_dereg_mr(NULL), EINVAL, "");
	CHECK_FAIL(ffv_rereg_mr(NULL, 1, NULL, NULL, 0, 0), EINVAL, "");
	CHECK_EQ(ctx->num_mr, 0);
	CHECK_EQ(pd->users, 0);
	CHECK_EQ(ffv_load_relaxed(&ctx->view.arena->num_mr), 0);
	CHECK_EQ(ffv_load_relaxed(&ctx->view.arena->registered_bytes), 0);
	CHECK_EQ(munmap(memory, PAGE) | munmap(memory + 2 * PAGE, PAGE), 0);
	CHECK_EQ(munmap(read_only, PAGE) | munmap(unreadable, PAGE), 0);
}

static void test_registered(void)
{
	uint8_t *memory = map_pages(4, PROT_READ | PROT_WRITE);
	uint64_t base = (uintptr_t)memory + 100, va;
	struct ffv_mr *mr = reg(memory + 100, 3 * PAGE, RW);

	CHECK(mr->context == ctx && mr->pd == pd && mr->addr == memory + 100);
	CHECK_EQ(mr->length, 3 * PAGE);
	CHECK_EQ(mr->lkey, mr->rkey);
	CHECK_EQ(mr->handle, FFV_KEY_INDEX(mr->lkey));
	CHECK(mr->handle != 0);
	CHECK_EQ(ffv_load_relaxed(&ctx->view.arena->num_mr), 1);
	CHECK_EQ(ffv_load_relaxed(&ctx->view.arena->registered_bytes), 3 * PAGE);
	CHECK_EQ(pd->users, 1);
	CHECK_EQ(ffv_dealloc_pd(pd), -EBUSY);
	CHECK(resolves(mr->rkey, pd, base, 3 * PAGE, RW, &va));
	CHECK_EQ(va, base);
	CHECK(!resolves(mr->rkey, pd, base, 3 * PAGE + 1, 0, NULL));
	CHECK(!resolves(mr->rkey, pd, base - 1, 2, 0, NULL));
	CHECK(!resolves(mr->rkey, pd, base, 8, FFV_ACCESS_REMOTE_ATOMIC, NULL));
	CHECK(!resolves(mr->rkey + 1, pd, base, 8, 0, NULL));
	CHECK(!resolves(mr->rkey - 1, pd, base, 8, 0, NULL));
	/* The whole pages in it can be mapped by peers, the edges cannot. */
	CHECK_EQ(entry_of(mr)->mirror_first, (uintptr_t)memory + PAGE);
	CHECK_EQ(entry_of(mr)->mirror_end, (uintptr_t)memory + 3 * PAGE);
	uint32_t key = mr->rkey;
	CHECK(is_mirrored(memory + PAGE) && !is_mirrored(memory));
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK(!is_mirrored(memory + PAGE));
	CHECK(!resolves(key, pd, base, 1, 0, NULL));
	CHECK_EQ(munmap(memory, 4 * PAGE), 0);
}

static void test_addresses(void)
{
	uint8_t *memory = map_pages(1, PROT_READ | PROT_WRITE);
	uint64_t va, address = (uintptr_t)memory;
	struct ffv_mr *mr;

	CHECK_OK(ffv_reg_mr(pd, memory, PAGE, 0x1000, RW, &mr));
	CHECK(resolves(mr->rkey, pd, 0x1010, 8, 0, &va));
	CHECK_EQ(va, address + 0x10);
	CHECK(!resolves(mr->rkey, pd, address, 8, 0, NULL));
	CHECK_OK(ffv_dereg_mr(mr));
	/* the last byte of 64 bits but one */
	CHECK_OK(ffv_reg_mr(pd, memory, PAGE, UINT64_MAX - PAGE, RW, &mr));
	CHECK(resolves(mr->rkey, pd, UINT64_MAX - PAGE, PAGE, 0, &va));
	CHECK(!resolves(mr->rkey, pd, UINT64_MAX - PAGE, PAGE + 1, 0, &va));
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_OK(ffv_reg_mr(pd, memory, PAGE, 77, RW | FFV_ACCESS_ZERO_BASED, &mr));
	CHECK(resolves(mr->rkey, pd, 0, PAGE, 0, &va));
	CHECK_EQ(va, address);
	CHECK_OK(ffv_dereg_mr(mr));
	mr = reg(memory, 0, RW);
	CHECK(!resolves(mr->rkey, pd, address, 1, 0, NULL));
	CHECK(resolves(mr->rkey, pd, address, 0, 0, NULL));
	CHECK_OK(ffv_dereg_mr(mr));
	mr = reg(NULL, 0, 0);
	CHECK_OK(ffv_dereg_mr(mr));
	mr = reg(memory, PAGE, RW | FFV_ACCESS_HUGETLB | FFV_ACCESS_RELAXED_ORDERING | FFV_ACCESS_MW_BIND);
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_EQ(munmap(memory, PAGE), 0);
}

static void test_allocated(void)
{
	static const size_t lengths[] = {0, 1, PAGE - 1, PAGE, PAGE + 1, 10 * PAGE + 5};

	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		struct ffv_mr *mr;
		CHECK_OK(ffv_alloc_mr(pd, lengths[i], RW, &mr));
		CHECK_EQ(mr->length, lengths[i]);
		CHECK_EQ((uintptr_t)mr->addr % PAGE, 0);
		for (size_t b = 0; b < lengths[i]; b++)
			CHECK_EQ(((uint8_t *)mr->addr)[b], 0);
		memset(mr->addr, 0xab, lengths[i]);
		CHECK_EQ(entry_of(mr)->mirror_first, (uintptr_t)mr->addr);
		CHECK_EQ(entry_of(mr)->mirror_end, (uintptr_t)mr->addr + lengths[i]);
		CHECK_OK(ffv_dereg_mr(mr));
	}
}

/* ---- re-registering -------------------------------------------------------------------------------------------- */

struct state { struct ffv_mr mr; struct ffv_key_shm entry; uint32_t users; uint64_t bytes; };

static struct state state_of(const struct ffv_mr *mr)
{
	return (struct state){*mr, *entry_of(mr), pd->users, ffv_load_relaxed(&ctx->view.arena->registered_bytes)};
}

static void check_same(const struct ffv_mr *mr, const struct state *before)
{
	struct state after = state_of(mr);

	CHECK_EQ(memcmp(&after.mr, &before->mr, sizeof after.mr), 0);
	CHECK_EQ(memcmp(&after.entry, &before->entry, sizeof after.entry), 0);
	CHECK_EQ(after.users, before->users);
	CHECK_EQ(after.bytes, before->bytes);
}

static void test_rereg_flags(void)
{
	uint8_t *a = map_pages(2, PROT_READ | PROT_WRITE), *b = map_pages(3, PROT_READ | PROT_WRITE);
	struct ffv_pd *other = opened_pd(ctx);

	for (int flags = 1; flags <= 7; flags++) {
		struct ffv_mr *mr = reg(a, 2 * PAGE, RW);
		bool moves = flags & FFV_REREG_MR_CHANGE_TRANSLATION, changes_pd = flags & FFV_REREG_MR_CHANGE_PD;
		bool changes_access = flags & FFV_REREG_MR_CHANGE_ACCESS;
		uint32_t key = mr->rkey, access = changes_access ? FFV_ACCESS_LOCAL_WRITE : RW;
		uint64_t first = (uintptr_t)(moves ? b : a), length = moves ? 3 * PAGE : 2 * PAGE;
		struct ffv_pd *now = changes_pd ? other : pd;

		memset(a, flags, 2 * PAGE);
		CHECK_OK(ffv_rereg_mr(mr, flags, other, b, 3 * PAGE, changes_access ? access : 0));
		CHECK_EQ(mr->lkey, key);
		CHECK_EQ(mr->rkey, key);
		CHECK(mr->pd == now && (uintptr_t)mr->addr == first && mr->length == length);
		CHECK(resolves(key, now, first, (uint32_t)length, access, NULL));
		CHECK(!resolves(key, now == pd ? other : pd, first, 1, 0, NULL));
		CHECK(!resolves(key, now, first, (uint32_t)length + 1, 0, NULL));
		CHECK_EQ(resolves(key, now, first, 1, FFV_ACCESS_REMOTE_READ, NULL), !changes_access);
		CHECK_EQ(entry_of(mr)->mirror_first, first);
		CHECK_EQ(entry_of(mr)->mirror_end, first + length);
		CHECK_EQ(ffv_load_relaxed(&ctx->view.arena->registered_bytes), length);
		CHECK_EQ(other->users, changes_pd);
		CHECK_EQ(pd->users, !changes_pd);
		CHECK_EQ(ffv_dealloc_pd(now), -EBUSY);
		CHECK_EQ(is_mirrored(a), !moves);
		CHECK_EQ(is_mirrored(b), moves);
		CHECK_OK(ffv_dereg_mr(mr));
		CHECK(!is_mirrored(a) && !is_mirrored(b));
		CHECK_EQ(a[2 * PAGE - 1], flags);
		CHECK_EQ(other->users + pd->users, 0);
	}
	CHECK_OK(ffv_dealloc_pd(other));
	CHECK_EQ(munmap(a, 2 * PAGE) | munmap(b, 3 * PAGE), 0);
}

static void test_rereg_refused(void)
{
	uint8_t *memory = map_pages(2, PROT_READ | PROT_WRITE), *read_only = map_pages(1, PROT_READ);
	struct ffv_context *alien_ctx = opened_context();
	struct ffv_pd *alien = opened_pd(alien_ctx);
	struct ffv_mr *mr = reg(memory, PAGE, RW);
	const struct state before = state_of(mr);
	const struct {
		int flags;
		struct ffv_pd *pd;
		void *addr;
		size_t length;
		uint32_t access;
		int err;
	} table[] = {
		{0, pd, memory, PAGE, 0, EINVAL},
		{8, pd, memory, PAGE, 0, EINVAL},
		{-1, pd, memory, PAGE, 0, EINVAL},
		{FFV_REREG_MR_CHANGE_PD, NULL, NULL, 0, 0, EINVAL},
		{FFV_REREG_MR_CHANGE_PD, alien, NULL, 0, 0, EINVAL},
		{FFV_REREG_MR_CHANGE_PD, pd, NULL, 0, RW, EINVAL},
		{FFV_REREG_MR_CHANGE_TRANSLATION, pd, NULL, PAGE, 0, EINVAL},
		{FFV_REREG_MR_CHANGE_TRANSLATION, pd, memory, 0, 0, EINVAL},
		{FFV_REREG_MR_CHANGE_TRANSLATION, pd, memory, SIZE_MAX, 0, EINVAL},
		{FFV_REREG_MR_CHANGE_TRANSLATION, pd, memory, 64 * PAGE, 0, EFAULT},
		{FFV_REREG_MR_CHANGE_TRANSLATION, pd, read_only, PAGE, 0, EACCES},
		{FFV_REREG_MR_CHANGE_ACCESS, pd, NULL, 0, FFV_ACCESS_REMOTE_WRITE, EINVAL},
		{FFV_REREG_MR_CHANGE_ACCESS, pd, NULL, 0, 1u << 30, EINVAL},
		{7, alien, memory, PAGE, RW, EINVAL},
		{7, pd, read_only, PAGE, RW, EACCES},
	};

	CHECK_EQ(munmap(memory + PAGE, PAGE), 0);
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		fprintf(stderr, "refused %zu\n", i);
		CHECK_RC(ffv_rereg_mr(mr, table[i].flags, table[i].pd, table[i].addr, table[i].length, table[i].access),
			 -table[i].err);
		check_same(mr, &before);
	}
	/* What only the old access allows: read-only memory may be read. */
	CHECK_OK(ffv_rereg_mr(mr, 5, NULL, read_only, PAGE, FFV_ACCESS_REMOTE_READ));
	CHECK_EQ(ffv_rereg_mr(mr, FFV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, RW), -EACCES);
	CHECK(resolves(mr->rkey, pd, (uintptr_t)read_only, PAGE, FFV_ACCESS_REMOTE_READ, NULL));
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_OK(ffv_dealloc_pd(alien));
	CHECK_OK(ffv_close_device(alien_ctx));
	CHECK_EQ(munmap(memory, PAGE) | munmap(read_only, PAGE), 0);
}

static void test_rereg_iova(void)
{
	uint8_t *memory = map_pages(2, PROT_READ | PROT_WRITE);
	uint64_t va;
	struct ffv_mr *mr;

	CHECK_OK(ffv_reg_mr(pd, memory, PAGE, 0x5000, RW, &mr));
	CHECK_OK(ffv_rereg_mr(mr, FFV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, FFV_ACCESS_LOCAL_WRITE));
	CHECK(resolves(mr->rkey, pd, 0x5000, PAGE, 0, NULL)); /* the address stays */
	CHECK_OK(ffv_rereg_mr(mr, FFV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, RW | FFV_ACCESS_ZERO_BASED));
	CHECK(resolves(mr->rkey, pd, 0, PAGE, 0, &va));
	CHECK_OK(ffv_rereg_mr(mr, FFV_REREG_MR_CHANGE_TRANSLATION, NULL, memory + PAGE, PAGE, 0));
	CHECK(resolves(mr->rkey, pd, 0, PAGE, 0, &va));
	CHECK_EQ(va, (uintptr_t)memory + PAGE);
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_EQ(munmap(memory, 2 * PAGE), 0);
}

/* What ffv_alloc_mr gave stays until the end, whatever the region is re-registered to. */
static void test_rereg_allocated(void)
{
	uint8_t *memory = map_pages(1, PROT_READ | PROT_WRITE);
	struct ffv_mr *mr;

	CHECK_OK(ffv_alloc_mr(pd, 4 * PAGE, RW, &mr));
	uint8_t *given = mr->addr;
	memset(given, 0x11, 4 * PAGE);
	CHECK_OK(ffv_rereg_mr(mr, FFV_REREG_MR_CHANGE_TRANSLATION, NULL, memory, PAGE, 0));
	CHECK_EQ(given[4 * PAGE - 1], 0x11);
	CHECK_OK(ffv_rereg_mr(mr, FFV_REREG_MR_CHANGE_TRANSLATION, NULL, given + 100, PAGE, 0));
	CHECK_EQ(given[100], 0x11);
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK(msync(given, PAGE, MS_ASYNC) != 0 && errno == ENOMEM); /* unmapped */
	CHECK_EQ(munmap(memory, PAGE), 0);
}

/* ---- windows --------------------------------------------------------------------------------------------------- */

/* As the executor does it. */
static void bind_by_hand(struct ffv_mw *mw, const struct ffv_mr *mr)
{
	struct ffv_key_shm *entry = &ctx->view.arena->keys[mw->index];

	entry->access = RW;
	entry->va = entry->iova = (uintptr_t)mr->addr;
	entry->length_bytes = mr->length;
	entry->parent_index = mr->handle;
	ffv_store_release(&entry->key, ffv_mw_rkey(mw));
}

static void test_windows(void)
{
	struct ffv_mr *mr, *bystander;
	struct ffv_mw *mw[3];
	uint8_t *memory = map_pages(1, PROT_READ | PROT_WRITE);

	CHECK_FAIL(ffv_alloc_mw(pd, 0, mw), EINVAL, "type 0");
	CHECK_FAIL(ffv_alloc_mw(pd, 3, mw), EINVAL, "type 3");
	CHECK_FAIL(ffv_alloc_mw(NULL, 1, mw), EINVAL, "");
	CHECK_FAIL(ffv_dealloc_mw(NULL), EINVAL, "");
	for (uint32_t i = 0; i < 3; i++) {
		CHECK_OK(ffv_alloc_mw(pd, 1 + i % 2, &mw[i]));
		CHECK(!resolves(ffv_mw_rkey(mw[i]), pd, 0, 1, 0, NULL));
		CHECK_EQ(FFV_KEY_INDEX(ffv_mw_rkey(mw[i])), mw[i]->index);
	}
	CHECK_EQ(pd->users, 3);
	mr = reg(memory, PAGE, RW | FFV_ACCESS_MW_BIND);
	bystander = reg(memory, PAGE, RW);
	bind_by_hand(mw[2], mr);
	const struct state before = state_of(mr);
	CHECK_FAIL(ffv_dereg_mr(mr), EBUSY, "windows");
	check_same(mr, &before);
	CHECK_FAIL(ffv_rereg_mr(mr, 1, NULL, memory, PAGE, 0), EBUSY, "windows");
	check_same(mr, &before);
	CHECK_OK(ffv_dereg_mr(bystander));
	uint32_t rkey = ffv_mw_rkey(mw[2]);
	CHECK(resolves(rkey, pd, (uintptr_t)memory, PAGE, RW, NULL));
	CHECK_OK(ffv_dealloc_mw(mw[2])); /* while bound */
	CHECK(!resolves(rkey, pd, (uintptr_t)memory, 1, 0, NULL));
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK(!is_mirrored(memory)); /* a failed re-registration gave back what it had taken */
	CHECK_OK(ffv_dealloc_mw(mw[0]));
	CHECK_OK(ffv_dealloc_mw(mw[1]));
	CHECK_EQ(pd->users + ctx->num_mw, 0);
	CHECK_EQ(munmap(memory, PAGE), 0);
}

/* ---- memory that went while registered ------------------------------------------------------------------------- */

static void test_unmapped(void)
{
	uint8_t *memory = map_pages(4, PROT_READ | PROT_WRITE);
	struct ffv_mr *mr = reg(memory, 4 * PAGE, RW);

	memset(memory, 0x77, 4 * PAGE);
	CHECK_EQ(munmap(memory + PAGE, 2 * PAGE), 0);
	uint8_t *again = mmap(memory + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
			      -1, 0);
	CHECK(again == memory + PAGE);
	again[0] = 0x42; /* somebody else's now */
	CHECK_OK(ffv_dereg_mr(mr));
	CHECK_EQ(again[0], 0x42);
	CHECK_EQ(again[1], 0);
	CHECK_EQ(memory[PAGE - 1], 0x77);
	CHECK_EQ(memory[3 * PAGE], 0x77);
	CHECK_EQ(munmap(memory, 2 * PAGE) | munmap(memory + 3 * PAGE, PAGE), 0);
}

static void test_freed(void)
{
	mallopt(M_MMAP_THRESHOLD, 1 << 30); /* from the heap, which goes on; sanitizers have their own and refuse */
	for (size_t length = 1000; length < 300000; length = length * 3 + 77) {
		uint8_t *memory = malloc(length), *own = map_pages(1, PROT_READ | PROT_WRITE);
		struct ffv_mr *mr = reg(own, PAGE, RW);
		CHECK(memory);
		memset(memory, 1, length);
		CHECK_OK(ffv_rereg_mr(mr, FFV_REREG_MR_CHANGE_TRANSLATION, NULL, memory, length, 0));
		free(memory);
		uint8_t *next = malloc(length); /* likely the same */
		memset(next, 2, length);
		CHECK_OK(ffv_dereg_mr(mr));
		for (size_t i = 0; i < length; i++)
			CHECK_EQ(next[i], 2);
		free(next);
		CHECK_EQ(munmap(own, PAGE), 0);
	}
}

/* ---- fork ------------------------------------------------------------------------------------------------------ */

struct family { struct ffv_mr *mr; struct ffv_mr *allocated; struct ffv_mw *mw; struct ffv_ah *ah; };

static void in_child(void *arg)
{
	struct family *family = arg;
	uint8_t *memory = map_pages(1, PROT_READ | PROT_WRITE);
	struct ffv_mr *mr;
	struct ffv_mw *mw;
	struct ffv_pd *none;

	CHECK_EQ(ffv_reg_mr(pd, memory, PAGE, 0, 0, &mr), -EOWNERDEAD);
	CHECK_EQ(ffv_alloc_mr(pd, PAGE, 0, &mr), -EOWNERDEAD);
	CHECK_EQ(ffv_alloc_mw(pd, 1, &mw), -EOWNERDEAD);
	CHECK_EQ(ffv_alloc_pd(ctx, &none), -EOWNERDEAD);
	CHECK_EQ(ffv_rereg_mr(family->mr, FFV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, 0), -EOWNERDEAD);
	CHECK_OK(ffv_dealloc_mw(family->mw));
	CHECK_OK(ffv_dereg_mr(family->mr));
	CHECK_OK(ffv_dereg_mr(family->allocated));
	CHECK_OK(ffv_destroy_ah(family->ah));
	CHECK_OK(ffv_dealloc_pd(pd));
}

static void test_fork(void)
{
	struct ffv_ah_attr attr = {.is_global = 1, .port_num = 1};
	struct family family;
	uint8_t *memory = map_pages(2, PROT_READ | PROT_WRITE);

	memset(memory, 0x33, 2 * PAGE);
	family.mr = reg(memory, 2 * PAGE, RW | FFV_ACCESS_MW_BIND);
	CHECK_OK(ffv_alloc_mr(pd, PAGE, RW, &family.allocated));
	CHECK_OK(ffv_alloc_mw(pd, 1, &family.mw));
	CHECK_OK(ffv_create_ah(pd, &attr, &family.ah));
	memset(family.allocated->addr, 0x44, PAGE);
	bind_by_hand(family.mw, family.mr);
	const struct state before = state_of(family.mr);
	child_run(geteuid(), in_child, &family);
	check_same(family.mr, &before);
	CHECK(resolves(ffv_mw_rkey(family.mw), pd, (uintptr_t)memory, PAGE, RW, NULL));
	CHECK(resolves(family.allocated->rkey, pd, (uintptr_t)family.allocated->addr, PAGE, RW, NULL));
	CHECK_EQ(((uint8_t *)family.allocated->addr)[PAGE - 1], 0x44);
	CHECK_EQ(memory[2 * PAGE - 1], 0x33);
	CHECK_OK(ffv_destroy_ah(family.ah));
	CHECK_OK(ffv_dealloc_mw(family.mw));
	CHECK_OK(ffv_dereg_mr(family.mr));
	CHECK_OK(ffv_dereg_mr(family.allocated));
	CHECK_EQ(munmap(memory, 2 * PAGE), 0);
}

int main(void)
{
	opened_directory();
	ctx = opened_context();
	pd = opened_pd(ctx);
	test_bad_input();
	test_registered();
	test_addresses();
	test_allocated();
	test_rereg_flags();
	test_rereg_refused();
	test_rereg_iova();
	test_rereg_allocated();
	test_windows();
	test_unmapped();
	test_freed();
	test_fork();
	CHECK_EQ(ctx->num_mr + ctx->num_mw + ctx->num_ah + pd->users, 0);
	CHECK_OK(ffv_dealloc_pd(pd));
	CHECK_OK(ffv_close_device(ctx));
	scratch_remove();
	return 0;
}

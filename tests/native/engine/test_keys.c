/* Looking keys up: bounds, rights and domains; and windows that are bound anew under the reader. */
#include <pthread.h>
#include <time.h>

#include "world.h"

#define KEY WORLD_KEY(9, 3)
#define VA 0x7000000000ull
#define IOVA 0x1000ull
#define LENGTH 0x2000ull

static struct party party;

static struct ffv_key_shm *fresh_key(void)
{
	party_create(&party, 1);
	struct ffv_key_shm *entry = party_key(&party, KEY, (void *)(uintptr_t)VA, LENGTH, true);
	entry->iova = IOVA;
	entry->access = FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_READ;
	return entry;
}

static bool resolves(uint32_t key, uint64_t addr, uint32_t length, uint32_t access)
{
	struct ffv_segment segment;

	if (!ffv_key_resolve(&party.far, key, WORLD_PD, 0, addr, length, access, &segment))
		return false;
	CHECK_EQ(segment.va, VA + (addr - IOVA));
	CHECK_EQ(segment.length_bytes, length);
	CHECK_EQ(segment.mirror_first, VA);
	CHECK_EQ(segment.mirror_end, VA + LENGTH);
	return true;
}

static void test_bounds(void)
{
	fresh_key();
	CHECK(resolves(KEY, IOVA, LENGTH, 0));
	CHECK(resolves(KEY, IOVA, 0, 0));
	CHECK(resolves(KEY, IOVA + LENGTH, 0, 0));
	CHECK(resolves(KEY, IOVA + LENGTH - 1, 1, 0));
	CHECK(!resolves(KEY, IOVA + LENGTH, 1, 0));
	CHECK(!resolves(KEY, IOVA + LENGTH + 1, 0, 0));
	CHECK(!resolves(KEY, IOVA - 1, 1, 0));
	CHECK(!resolves(KEY, IOVA - 1, 2, 0));
	CHECK(!resolves(KEY, IOVA, LENGTH + 1, 0));
	CHECK(!resolves(KEY, IOVA + 1, LENGTH, 0));
	CHECK(!resolves(KEY, IOVA, UINT32_MAX, 0));
	CHECK(!resolves(KEY, UINT64_MAX, 1, 0));
	CHECK(!resolves(KEY, UINT64_MAX - LENGTH, UINT32_MAX, 0));
	CHECK(!resolves(KEY, 0, 1, 0));
	party_destroy(&party);
}

static void test_a_key_that_wraps_round(void)
{
	struct ffv_key_shm *entry = fresh_key();
	struct ffv_segment segment;

	entry->iova = UINT64_MAX - 0xfff; /* what only a hostile owner writes: nothing outside [iova, iova + length) */
	CHECK(ffv_key_resolve(&party.far, KEY, WORLD_PD, 0, entry->iova, 16, 0, &segment));
	CHECK(!ffv_key_resolve(&party.far, KEY, WORLD_PD, 0, entry->iova - 1, 16, 0, &segment));
	CHECK(!ffv_key_resolve(&party.far, KEY, WORLD_PD, 0, 0x1000 + LENGTH, 16, 0, &segment));
	entry->length_bytes = UINT64_MAX;
	CHECK(ffv_key_resolve(&party.far, KEY, WORLD_PD, 0, 5, UINT32_MAX, 0, &segment));
	CHECK_EQ(segment.length_bytes, UINT32_MAX);
	party_destroy(&party);
}

static void test_rights(void)
{
	struct ffv_key_shm *entry = fresh_key();
	struct ffv_segment segment;

	CHECK(resolves(KEY, IOVA, 8, FFV_ACCESS_LOCAL_WRITE));
	CHECK(resolves(KEY, IOVA, 8, FFV_ACCESS_REMOTE_READ));
	CHECK(!resolves(KEY, IOVA, 8, FFV_ACCESS_REMOTE_WRITE));
	CHECK(!resolves(KEY, IOVA, 8, FFV_ACCESS_REMOTE_READ | FFV_ACCESS_REMOTE_ATOMIC));
	CHECK(!resolves(KEY + 1, IOVA, 8, 0));                 /* same index, another tag */
	CHECK(!resolves(KEY | 1u << 31, IOVA, 8, 0));          /* same index, other random bits */
	CHECK(!resolves(WORLD_KEY(10, 3), IOVA, 8, 0));        /* nothing there */
	CHECK(!resolves(0, IOVA, 8, 0));
	CHECK(!ffv_key_resolve(&party.far, KEY, WORLD_PD + 1, 0, IOVA, 8, 0, &segment));
	entry->kind = FFV_KEY_MW2;
	entry->qpn = 55;
	CHECK(ffv_key_resolve(&party.far, KEY, WORLD_PD, 55, IOVA, 8, 0, &segment));
	CHECK(!ffv_key_resolve(&party.far, KEY, WORLD_PD, 54, IOVA, 8, 0, &segment));
	ffv_store_seq_cst(&entry->key, 0u);
	CHECK(!ffv_key_resolve(&party.far, KEY, WORLD_PD, 55, IOVA, 8, 0, &segment));
	party_destroy(&party);
}

/* ---- bound anew under the reader ------------------------------------------------------------------------------------ */

#define ROUNDS 200000u

static _Atomic uint32_t current_key;
static _Atomic uint32_t done;

/* Each binding's fields all follow from its key. */
static uint64_t va_of(uint32_t key)
{
	return (uint64_t)key << 20;
}

static void *rebind(void *arg)
{
	struct ffv_key_shm *entry = arg;

	for (uint32_t i = 1; i <= ROUNDS; i++) {
		uint32_t key = KEY + (i % 64);
		ffv_store_seq_cst(&entry->key, 0u);
		ffv_fence_store_store();
		ffv_word_store(&entry->va, va_of(key));
		ffv_word_store(&entry->iova, va_of(key));
		ffv_word_store(&entry->mirror_first, va_of(key));
		ffv_word_store(&entry->mirror_end, va_of(key) + 4096);
		ffv_store_release(&entry->key, key);
		ffv_store_relaxed(&current_key, key);
	}
	ffv_store_release(&done, 1u);
	return NULL;
}

static void test_no_mixture_of_two_bindings(void)
{
	struct ffv_key_shm *entry = fresh_key();
	struct ffv_segment segment;
	uint64_t found = 0, refused = 0;
	pthread_t thread;

	ffv_store_relaxed(&current_key, KEY + 1);
	CHECK_EQ(pthread_create(&thread, NULL, rebind, entry), 0);
	while (!ffv_load_acquire(&done)) {
		uint32_t key = ffv_load_relaxed(&current_key);
		if (!ffv_key_resolve(&party.far, key, WORLD_PD, 0, va_of(key) + 8, 16, 0, &segment)) {
			refused++;
			continue;
		}
		found++;
		CHECK_EQ(segment.va, va_of(key) + 8);
		CHECK_EQ(segment.mirror_first, va_of(key));
		CHECK_EQ(segment.mirror_end, va_of(key) + 4096);
	}
	CHECK_EQ(pthread_join(thread, NULL), 0);
	printf("%llu found, %llu refused\n", (unsigned long long)found, (unsigned long long)refused);
	uint32_t last = ffv_load_relaxed(&current_key);
	CHECK(ffv_key_resolve(&party.far, last, WORLD_PD, 0, va_of(last), 16, 0, &segment));
	party_destroy(&party);
}

/* ---- revoked, waited for, used again: [exec-epoch] -------------------------------------------------------------------- */

static _Atomic uint32_t stop_reading;
static uint64_t memory;            /* what the key gives access to; plain: the epochs must order it */
static _Atomic uint64_t reads;

static void *read_by_key(void *arg)
{
	struct ffv_thread_shm *thread = arg;
	_Atomic uint64_t lock = 0;
	struct ffv_segment segment;

	while (!ffv_load_relaxed(&stop_reading)) {
		uint64_t free_lock = 0;
		ffv_exec_enter(thread);
		ffv_cas(&lock, &free_lock, 1); /* as the exec_lock: orders the epoch before the key */
		if (ffv_key_resolve(&party.far, KEY, WORLD_PD, 0, IOVA, 8, 0, &segment)) {
			CHECK_EQ(memory % 2, 0); /* never while the owner uses it for something else */
			ffv_fetch_add(&reads, 1);
		}
		ffv_store_relaxed(&lock, 0);
		ffv_exec_leave(thread);
	}
	return NULL;
}

static void wait_for_epoch(struct ffv_thread_shm *thread)
{
	ffv_fence_store_load();
	uint64_t seen = ffv_load_acquire(&thread->epoch);
	while (seen & 1 && ffv_load_acquire(&thread->epoch) == seen)
		ffv_cpu_relax();
}

static void test_revoked_memory_is_not_read(void)
{
	struct ffv_key_shm *entry = fresh_key();
	struct ffv_thread_shm *slot = &party.arena->threads[1];
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, read_by_key, slot), 0);
	for (uint32_t i = 0; i < 100000 || !ffv_load_relaxed(&reads); i++) {
		ffv_store_seq_cst(&entry->key, 0u);
		wait_for_epoch(slot);
		memory++; /* odd: the memory is somebody else's now */
		memory++;
		ffv_store_release(&entry->key, KEY);
	}
	ffv_store_relaxed(&stop_reading, 1u);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	party_destroy(&party);
}

int main(void)
{
	test_bounds();
	test_a_key_that_wraps_round();
	test_rights();
	test_no_mixture_of_two_bindings();
	test_revoked_memory_is_not_read();
	return 0;
}

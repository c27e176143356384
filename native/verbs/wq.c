/* SPDX-License-Identifier: MIT
 *
 * See wq.h. A table never changes, so receiving reads it without a lock: what is in it cannot be destroyed before it, nor
 * it before the queue pairs that use it.
 */
#include "verbs/wq.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "verbs/device.h"

struct ffv_wq {
	struct ffv_context *ctx;
	struct ffv_qp *qp;
	uint32_t users;               /* context.lock: entries of tables */
};

struct ffv_rwq_ind_table {
	struct ffv_context *ctx;
	uint32_t users;               /* context.lock: queue pairs */
	uint32_t index_mask;
	struct ffv_wq *wqs[];
};

/* ---- work queues --------------------------------------------------------------------------------------------------------- */

static int check_wq(const struct ffv_context *ctx, const struct ffv_wq_init_attr *attr)
{
	if (attr->wq_type != FFV_WQT_RQ)
		return ffv_fail(EINVAL, "there is no work queue of type %u; receive queues (0) are", attr->wq_type);
	if (attr->comp_mask & ~(uint32_t)FFV_WQ_INIT_ATTR_FLAGS)
		return ffv_fail(EINVAL, "comp_mask %#x of a work queue has unknown bits", attr->comp_mask);
	if (attr->comp_mask & FFV_WQ_INIT_ATTR_FLAGS && attr->create_flags)
		return ffv_fail(EOPNOTSUPP, "flags %#x of work queues are not supported", attr->create_flags);
	if (!attr->pd || !attr->cq || attr->pd->ctx != ctx || attr->cq->ctx != ctx)
		return ffv_fail(EINVAL, "a work queue needs a protection domain and a completion queue of its context");
	if (!attr->max_wr)
		return ffv_fail(EINVAL, "a work queue takes at least one work request");
	return 0;
}

int ffv_create_wq(struct ffv_context *ctx, struct ffv_wq_init_attr *attr, struct ffv_wq **out)
{
	int rc = ffv_context_check(ctx);

	if (!rc)
		rc = attr ? check_wq(ctx, attr) : ffv_fail(EINVAL, "no attributes of a work queue");
	if (rc)
		return rc;
	struct ffv_qp_init_attr half = { .send_cq = attr->cq, .recv_cq = attr->cq, .qp_type = FFV_QPT_RAW_PACKET,
					 .cap = { .max_recv_wr = attr->max_wr, .max_recv_sge = attr->max_sge } };
	struct ffv_wq *wq = calloc(1, sizeof *wq);
	if (!wq)
		return ffv_fail(ENOMEM, "no memory for a work queue");
	rc = ffv_create_qp(attr->pd, &half, &wq->qp);
	if (rc) {
		free(wq);
		return ffv_fail_context(rc, "cannot create a work queue");
	}
	wq->ctx = ctx;
	wq->qp->wq = wq;
	attr->max_wr = half.cap.max_recv_wr;
	attr->max_sge = half.cap.max_recv_sge;
	*out = wq;
	return 0;
}

int ffv_destroy_wq(struct ffv_wq *wq)
{
	if (!wq)
		return ffv_fail(EINVAL, "no work queue");
	if (!ffv_context_check(wq->ctx)) {
		pthread_mutex_lock(&wq->ctx->lock);
		uint32_t users = wq->users;
		pthread_mutex_unlock(&wq->ctx->lock);
		if (users)
			return ffv_fail(EBUSY, "work queue %#x stands in %u places of indirection tables", wq->qp->ref.qpn, users);
	}
	int rc = ffv_destroy_qp(wq->qp);
	if (!rc)
		free(wq);
	return rc;
}

uint32_t ffv_wq_num(struct ffv_wq *wq)
{
	return wq ? ffv_qp_num(wq->qp) : 0;
}

uint32_t ffv_wq_state(struct ffv_wq *wq)
{
	switch (wq ? ffv_qp_state(wq->qp) : FFV_QPS_UNKNOWN) {
	case FFV_QPS_RESET:
	case FFV_QPS_INIT:
		return FFV_WQS_RESET;
	case FFV_QPS_RTR:
		return FFV_WQS_RDY;
	case FFV_QPS_ERR:
		return FFV_WQS_ERR;
	default:
		return FFV_WQS_UNKNOWN;
	}
}

static int go_to(struct ffv_wq *wq, uint32_t state, uint32_t mask)
{
	struct ffv_qp_attr attr = { .qp_state = state, .port_num = FFV_PORT_NUM };

	return ffv_modify_qp(wq->qp, &attr, FFV_QP_STATE | mask);
}

static const char *name_of(uint32_t state)
{
	static const char *const names[] = { "RESET", "RDY", "ERR" };

	return state < sizeof names / sizeof names[0] ? names[state] : "UNKNOWN";
}

/* RESET to RDY, RDY to ERR, all to RESET (ibv_modify_wq(3)). */
static int change_state(struct ffv_wq *wq, uint32_t from, uint32_t to)
{
	if (to == from)
		return 0;
	if (to == FFV_WQS_RESET)
		return go_to(wq, FFV_QPS_RESET, 0);
	if (to == FFV_WQS_ERR && from == FFV_WQS_RDY)
		return go_to(wq, FFV_QPS_ERR, 0);
	if (to != FFV_WQS_RDY || from != FFV_WQS_RESET)
		return ffv_fail(EINVAL, "a work queue cannot go from %s to %s", name_of(from), name_of(to));
	int rc = ffv_qp_state(wq->qp) == FFV_QPS_INIT ? 0 : go_to(wq, FFV_QPS_INIT, FFV_QP_PORT);
	return rc ? rc : go_to(wq, FFV_QPS_RTR, 0);
}

int ffv_modify_wq(struct ffv_wq *wq, const struct ffv_wq_attr *attr)
{
	int rc = ffv_context_check(wq ? wq->ctx : NULL);

	if (rc)
		return rc;
	const uint32_t known = FFV_WQ_ATTR_STATE | FFV_WQ_ATTR_CURR_STATE | FFV_WQ_ATTR_FLAGS;
	if (!attr || attr->attr_mask & ~known)
		return ffv_fail(EINVAL, "attr_mask of a work queue has unknown bits");
	if (attr->attr_mask & FFV_WQ_ATTR_FLAGS && attr->flags_mask)
		return ffv_fail(EOPNOTSUPP, "flags %#x of work queues are not supported", attr->flags_mask);
	uint32_t from = ffv_wq_state(wq);
	if (attr->attr_mask & FFV_WQ_ATTR_CURR_STATE && attr->curr_wq_state != from)
		return ffv_fail(EINVAL, "the work queue is in state %s, not %s", name_of(from), name_of(attr->curr_wq_state));
	return attr->attr_mask & FFV_WQ_ATTR_STATE ? change_state(wq, from, attr->wq_state) : 0;
}

int ffv_post_wq_recv(struct ffv_wq *wq, struct ffv_recv_wr *wr, struct ffv_recv_wr **bad_wr)
{
	if (wq)
		return ffv_post_recv(wq->qp, wr, bad_wr);
	if (bad_wr)
		*bad_wr = wr;
	return ffv_fail(EINVAL, "no work queue");
}

/* ---- indirection tables ---------------------------------------------------------------------------------------------------- */

static int check_table(const struct ffv_context *ctx, const struct ffv_rwq_ind_table_init_attr *attr)
{
	if (attr->comp_mask)
		return ffv_fail(EINVAL, "comp_mask %#x of an indirection table has unknown bits", attr->comp_mask);
	if (attr->log_ind_tbl_size > FFV_LIMIT_LOG_TABLE || !attr->ind_tbl)
		return ffv_fail(EINVAL, "an indirection table has 1 to %u entries, not 2^%u", 1u << FFV_LIMIT_LOG_TABLE,
				attr->log_ind_tbl_size);
	for (uint32_t i = 0; i < 1u << attr->log_ind_tbl_size; i++)
		if (!attr->ind_tbl[i] || attr->ind_tbl[i]->ctx != ctx)
			return ffv_fail(EINVAL, "entry %u of an indirection table is no work queue of the context", i);
	return 0;
}

/* ctx->lock held. */
static void count_entries(struct ffv_rwq_ind_table *table, uint32_t n)
{
	for (uint32_t i = 0; i <= table->index_mask; i++)
		table->wqs[i]->users += n;
	table->ctx->num_tables += n;
}

int ffv_create_rwq_ind_table(struct ffv_context *ctx, const struct ffv_rwq_ind_table_init_attr *attr,
			     struct ffv_rwq_ind_table **out)
{
	int rc = ffv_context_check(ctx);

	if (!rc)
		rc = attr ? check_table(ctx, attr) : ffv_fail(EINVAL, "no attributes of an indirection table");
	if (rc)
		return rc;
	size_t count = (size_t)1 << attr->log_ind_tbl_size;
	struct ffv_rwq_ind_table *table = calloc(1, sizeof *table + count * sizeof(struct ffv_wq *));
	if (!table)
		return ffv_fail(ENOMEM, "no memory for an indirection table");
	table->ctx = ctx;
	table->index_mask = (uint32_t)count - 1;
	memcpy(table->wqs, attr->ind_tbl, count * sizeof(struct ffv_wq *));
	pthread_mutex_lock(&ctx->lock);
	bool full = ctx->num_tables >= FFV_LIMIT_TABLES;
	if (!full)
		count_entries(table, 1);
	pthread_mutex_unlock(&ctx->lock);
	if (full) {
		free(table);
		return ffv_fail(ENOMEM, "the context has %u indirection tables, the most there can be", FFV_LIMIT_TABLES);
	}
	*out = table;
	return 0;
}

int ffv_destroy_rwq_ind_table(struct ffv_rwq_ind_table *table)
{
	if (!table)
		return ffv_fail(EINVAL, "no indirection table");
	struct ffv_context *ctx = table->ctx;
	if (!ffv_context_check(ctx)) {
		pthread_mutex_lock(&ctx->lock);
		uint32_t users = table->users;
		if (!users)
			count_entries(table, -1u);
		pthread_mutex_unlock(&ctx->lock);
		if (users)
			return ffv_fail(EBUSY, "the indirection table is used by %u queue pairs", users);
	}
	free(table);
	return 0;
}

/* ---- receive-side scaling ----------------------------------------------------------------------------------------------------- */

static int check_rss(const struct ffv_context *ctx, const struct ffv_qp_init_attr_ex *attr)
{
	const uint32_t both = FFV_QP_INIT_ATTR_IND_TABLE | FFV_QP_INIT_ATTR_RX_HASH;
	const struct ffv_rx_hash_conf *conf = &attr->rx_hash_conf;

	if ((attr->comp_mask & both) != both || !attr->rwq_ind_tbl || attr->rwq_ind_tbl->ctx != ctx)
		return ffv_fail(EINVAL, "a queue pair that spreads packets needs an indirection table of its context and the "
				"hash that chooses an entry: set both, and IND_TABLE and RX_HASH in comp_mask");
	if (attr->qp_type != FFV_QPT_RAW_PACKET)
		return ffv_fail(EOPNOTSUPP, "only raw packet queue pairs can spread what they receive");
	if (attr->send_cq || attr->srq)
		return ffv_fail(EINVAL, "a queue pair with an indirection table only receives, through its work queues");
	if (conf->rx_hash_function != FFV_RX_HASH_FUNC_TOEPLITZ)
		return ffv_fail(EOPNOTSUPP, "hash function %#x is not supported; Toeplitz (1) is", conf->rx_hash_function);
	if (conf->rx_hash_key_len != FFV_TOEPLITZ_KEY_BYTES || !conf->rx_hash_key)
		return ffv_fail(EINVAL, "the key of a Toeplitz hash has %u bytes, not %u", FFV_TOEPLITZ_KEY_BYTES,
				conf->rx_hash_key_len);
	if (conf->rx_hash_fields_mask & ~(uint64_t)FFV_RX_HASH_ALL_FIELDS)
		return ffv_fail(EOPNOTSUPP, "of the hash fields %#llx only addresses and ports (%#x) are supported",
				(unsigned long long)conf->rx_hash_fields_mask, FFV_RX_HASH_ALL_FIELDS);
	return 0;
}

int ffv_rss_create(struct ffv_context *ctx, const struct ffv_qp_init_attr_ex *attr, struct ffv_rss **out)
{
	int rc = check_rss(ctx, attr);

	if (rc)
		return rc;
	struct ffv_rss *rss = calloc(1, sizeof *rss);
	if (!rss)
		return ffv_fail(ENOMEM, "no memory for a queue pair");
	rss->table = attr->rwq_ind_tbl;
	rss->fields = attr->rx_hash_conf.rx_hash_fields_mask;
	memcpy(rss->key, attr->rx_hash_conf.rx_hash_key, sizeof rss->key);
	pthread_mutex_lock(&ctx->lock);
	rss->table->users++;
	pthread_mutex_unlock(&ctx->lock);
	*out = rss;
	return 0;
}

void ffv_rss_release(struct ffv_rss *rss)
{
	if (!rss)
		return;
	pthread_mutex_lock(&rss->table->ctx->lock);
	rss->table->users--;
	pthread_mutex_unlock(&rss->table->ctx->lock);
	free(rss);
}

struct ffv_cq *ffv_rss_cq(const struct ffv_rss *rss)
{
	return rss->table->wqs[0]->qp->recv_cq;
}

struct ffv_qp_ref *ffv_rss_pick(const struct ffv_rss *rss, const struct ffv_packet *packet)
{
	uint32_t hash = ffv_packet_hash(packet, rss->key, rss->fields);

	return &rss->table->wqs[hash & rss->table->index_mask]->qp->ref;
}

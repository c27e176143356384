/* Structs and values of the public header are those of libibverbs, field by field: checked by the compiler where its
 * headers are installed (Debian: libibverbs-dev); elsewhere the test is skipped. */
#include <stdio.h>

#if HAVE_LIBIBVERBS
#include <stddef.h>

#include <ffverbs/ffv.h>
#include <infiniband/verbs.h>

#define SAME_SIZE(ours, theirs) _Static_assert(sizeof(struct ours) == sizeof(struct theirs), "size of " #ours)
#define FIELD(ours, field, theirs, their_field)                                                                       \
	_Static_assert(offsetof(struct ours, field) == offsetof(struct theirs, their_field), #ours "." #field " moved"); \
	_Static_assert(sizeof(((struct ours *)0)->field) == sizeof(((struct theirs *)0)->their_field),                \
		       #ours "." #field " has another size")
#define VALUE(name) _Static_assert((unsigned long)FFV_##name == (unsigned long)IBV_##name, "value of " #name)

/* An address with a GRH: the destination GID is two words here, a union of bytes and words there. */
SAME_SIZE(ffv_global_route, ibv_global_route);
_Static_assert(sizeof(struct ffv_gid) == sizeof(union ibv_gid), "size of a GID");
FIELD(ffv_global_route, dgid_subnet_prefix_be, ibv_global_route, dgid.global.subnet_prefix);
FIELD(ffv_global_route, dgid_interface_id_be, ibv_global_route, dgid.global.interface_id);
FIELD(ffv_global_route, flow_label, ibv_global_route, flow_label);
FIELD(ffv_global_route, sgid_index, ibv_global_route, sgid_index);
FIELD(ffv_global_route, hop_limit, ibv_global_route, hop_limit);
FIELD(ffv_global_route, traffic_class, ibv_global_route, traffic_class);

SAME_SIZE(ffv_grh, ibv_grh);
FIELD(ffv_grh, version_tclass_flow_be, ibv_grh, version_tclass_flow);
FIELD(ffv_grh, paylen_be, ibv_grh, paylen);
FIELD(ffv_grh, next_hdr, ibv_grh, next_hdr);
FIELD(ffv_grh, hop_limit, ibv_grh, hop_limit);
FIELD(ffv_grh, sgid, ibv_grh, sgid);
FIELD(ffv_grh, dgid, ibv_grh, dgid);

SAME_SIZE(ffv_ah_attr, ibv_ah_attr);
FIELD(ffv_ah_attr, grh, ibv_ah_attr, grh);
FIELD(ffv_ah_attr, dlid, ibv_ah_attr, dlid);
FIELD(ffv_ah_attr, sl, ibv_ah_attr, sl);
FIELD(ffv_ah_attr, src_path_bits, ibv_ah_attr, src_path_bits);
FIELD(ffv_ah_attr, static_rate, ibv_ah_attr, static_rate);
FIELD(ffv_ah_attr, is_global, ibv_ah_attr, is_global);
FIELD(ffv_ah_attr, port_num, ibv_ah_attr, port_num);

SAME_SIZE(ffv_sge, ibv_sge);
FIELD(ffv_sge, addr, ibv_sge, addr);
FIELD(ffv_sge, length, ibv_sge, length);
FIELD(ffv_sge, lkey, ibv_sge, lkey);

SAME_SIZE(ffv_mr, ibv_mr);
FIELD(ffv_mr, context, ibv_mr, context);
FIELD(ffv_mr, pd, ibv_mr, pd);
FIELD(ffv_mr, addr, ibv_mr, addr);
FIELD(ffv_mr, length, ibv_mr, length);
FIELD(ffv_mr, handle, ibv_mr, handle);
FIELD(ffv_mr, lkey, ibv_mr, lkey);
FIELD(ffv_mr, rkey, ibv_mr, rkey);

SAME_SIZE(ffv_srq_init_attr_ex, ibv_srq_init_attr_ex);
FIELD(ffv_srq_init_attr_ex, srq_context, ibv_srq_init_attr_ex, srq_context);
FIELD(ffv_srq_init_attr_ex, attr, ibv_srq_init_attr_ex, attr);
FIELD(ffv_srq_init_attr_ex, comp_mask, ibv_srq_init_attr_ex, comp_mask);
FIELD(ffv_srq_init_attr_ex, srq_type, ibv_srq_init_attr_ex, srq_type);
FIELD(ffv_srq_init_attr_ex, pd, ibv_srq_init_attr_ex, pd);
FIELD(ffv_srq_init_attr_ex, xrcd, ibv_srq_init_attr_ex, xrcd);
FIELD(ffv_srq_init_attr_ex, cq, ibv_srq_init_attr_ex, cq);
FIELD(ffv_srq_init_attr_ex, tm_cap.max_num_tags, ibv_srq_init_attr_ex, tm_cap.max_num_tags);
FIELD(ffv_srq_init_attr_ex, tm_cap.max_ops, ibv_srq_init_attr_ex, tm_cap.max_ops);
VALUE(SRQT_BASIC);
VALUE(SRQT_XRC);
VALUE(SRQT_TM);
VALUE(SRQ_INIT_ATTR_TYPE);
VALUE(SRQ_INIT_ATTR_PD);
VALUE(SRQ_INIT_ATTR_XRCD);
VALUE(SRQ_INIT_ATTR_CQ);
VALUE(SRQ_INIT_ATTR_TM);

SAME_SIZE(ffv_ops_wr, ibv_ops_wr);
FIELD(ffv_ops_wr, wr_id, ibv_ops_wr, wr_id);
FIELD(ffv_ops_wr, next, ibv_ops_wr, next);
FIELD(ffv_ops_wr, opcode, ibv_ops_wr, opcode);
FIELD(ffv_ops_wr, flags, ibv_ops_wr, flags);
FIELD(ffv_ops_wr, tm.unexpected_cnt, ibv_ops_wr, tm.unexpected_cnt);
FIELD(ffv_ops_wr, tm.handle, ibv_ops_wr, tm.handle);
FIELD(ffv_ops_wr, tm.add.recv_wr_id, ibv_ops_wr, tm.add.recv_wr_id);
FIELD(ffv_ops_wr, tm.add.sg_list, ibv_ops_wr, tm.add.sg_list);
FIELD(ffv_ops_wr, tm.add.num_sge, ibv_ops_wr, tm.add.num_sge);
FIELD(ffv_ops_wr, tm.add.tag, ibv_ops_wr, tm.add.tag);
FIELD(ffv_ops_wr, tm.add.mask, ibv_ops_wr, tm.add.mask);
VALUE(WR_TAG_ADD);
VALUE(WR_TAG_DEL);
VALUE(WR_TAG_SYNC);
VALUE(OPS_SIGNALED);
VALUE(OPS_TM_SYNC);
VALUE(WC_TM_ADD);
VALUE(WC_TM_DEL);
VALUE(WC_TM_SYNC);
VALUE(WC_TM_RECV);
VALUE(WC_TM_NO_TAG);
VALUE(WC_TM_SYNC_REQ);
VALUE(WC_TM_MATCH);
VALUE(WC_TM_DATA_VALID);
VALUE(WC_TM_ERR);
VALUE(WC_TM_RNDV_INCOMPLETE);

SAME_SIZE(ffv_xrcd_init_attr, ibv_xrcd_init_attr);
FIELD(ffv_xrcd_init_attr, comp_mask, ibv_xrcd_init_attr, comp_mask);
FIELD(ffv_xrcd_init_attr, fd, ibv_xrcd_init_attr, fd);
FIELD(ffv_xrcd_init_attr, oflags, ibv_xrcd_init_attr, oflags);
VALUE(XRCD_INIT_ATTR_FD);
VALUE(XRCD_INIT_ATTR_OFLAGS);
VALUE(QPT_XRC_SEND);
VALUE(QPT_XRC_RECV);

SAME_SIZE(ffv_mw_bind_info, ibv_mw_bind_info);
FIELD(ffv_mw_bind_info, mr, ibv_mw_bind_info, mr);
FIELD(ffv_mw_bind_info, addr, ibv_mw_bind_info, addr);
FIELD(ffv_mw_bind_info, length, ibv_mw_bind_info, length);
FIELD(ffv_mw_bind_info, mw_access_flags, ibv_mw_bind_info, mw_access_flags);

SAME_SIZE(ffv_send_wr, ibv_send_wr);
FIELD(ffv_send_wr, wr_id, ibv_send_wr, wr_id);
FIELD(ffv_send_wr, next, ibv_send_wr, next);
FIELD(ffv_send_wr, sg_list, ibv_send_wr, sg_list);
FIELD(ffv_send_wr, num_sge, ibv_send_wr, num_sge);
FIELD(ffv_send_wr, opcode, ibv_send_wr, opcode);
FIELD(ffv_send_wr, send_flags, ibv_send_wr, send_flags);
FIELD(ffv_send_wr, imm_data_be, ibv_send_wr, imm_data);
FIELD(ffv_send_wr, imm_data_be, ibv_send_wr, invalidate_rkey);
FIELD(ffv_send_wr, wr.rdma.remote_addr, ibv_send_wr, wr.rdma.remote_addr);
FIELD(ffv_send_wr, wr.rdma.rkey, ibv_send_wr, wr.rdma.rkey);
FIELD(ffv_send_wr, wr.atomic.remote_addr, ibv_send_wr, wr.atomic.remote_addr);
FIELD(ffv_send_wr, wr.atomic.compare_add, ibv_send_wr, wr.atomic.compare_add);
FIELD(ffv_send_wr, wr.atomic.swap, ibv_send_wr, wr.atomic.swap);
FIELD(ffv_send_wr, wr.atomic.rkey, ibv_send_wr, wr.atomic.rkey);
FIELD(ffv_send_wr, wr.ud.ah, ibv_send_wr, wr.ud.ah);
FIELD(ffv_send_wr, wr.ud.remote_qpn, ibv_send_wr, wr.ud.remote_qpn);
FIELD(ffv_send_wr, wr.ud.remote_qkey, ibv_send_wr, wr.ud.remote_qkey);
FIELD(ffv_send_wr, xrc_remote_srqn, ibv_send_wr, qp_type.xrc.remote_srqn);
FIELD(ffv_send_wr, tail.bind_mw.mw, ibv_send_wr, bind_mw.mw);
FIELD(ffv_send_wr, tail.bind_mw.rkey, ibv_send_wr, bind_mw.rkey);
FIELD(ffv_send_wr, tail.bind_mw.bind_info, ibv_send_wr, bind_mw.bind_info);
FIELD(ffv_send_wr, tail.tso.hdr, ibv_send_wr, tso.hdr);
FIELD(ffv_send_wr, tail.tso.hdr_sz, ibv_send_wr, tso.hdr_sz);
FIELD(ffv_send_wr, tail.tso.mss, ibv_send_wr, tso.mss);

SAME_SIZE(ffv_recv_wr, ibv_recv_wr);
FIELD(ffv_recv_wr, wr_id, ibv_recv_wr, wr_id);
FIELD(ffv_recv_wr, next, ibv_recv_wr, next);
FIELD(ffv_recv_wr, sg_list, ibv_recv_wr, sg_list);
FIELD(ffv_recv_wr, num_sge, ibv_recv_wr, num_sge);

SAME_SIZE(ffv_wc, ibv_wc);
FIELD(ffv_wc, wr_id, ibv_wc, wr_id);
FIELD(ffv_wc, status, ibv_wc, status);
FIELD(ffv_wc, opcode, ibv_wc, opcode);
FIELD(ffv_wc, vendor_err, ibv_wc, vendor_err);
FIELD(ffv_wc, byte_len, ibv_wc, byte_len);
FIELD(ffv_wc, imm_data_be, ibv_wc, imm_data);
FIELD(ffv_wc, imm_data_be, ibv_wc, invalidated_rkey);
FIELD(ffv_wc, qp_num, ibv_wc, qp_num);
FIELD(ffv_wc, src_qp, ibv_wc, src_qp);
FIELD(ffv_wc, wc_flags, ibv_wc, wc_flags);
FIELD(ffv_wc, pkey_index, ibv_wc, pkey_index);
FIELD(ffv_wc, slid, ibv_wc, slid);
FIELD(ffv_wc, sl, ibv_wc, sl);
FIELD(ffv_wc, dlid_path_bits, ibv_wc, dlid_path_bits);

SAME_SIZE(ffv_qp_cap, ibv_qp_cap);
FIELD(ffv_qp_cap, max_send_wr, ibv_qp_cap, max_send_wr);
FIELD(ffv_qp_cap, max_recv_wr, ibv_qp_cap, max_recv_wr);
FIELD(ffv_qp_cap, max_send_sge, ibv_qp_cap, max_send_sge);
FIELD(ffv_qp_cap, max_recv_sge, ibv_qp_cap, max_recv_sge);
FIELD(ffv_qp_cap, max_inline_data, ibv_qp_cap, max_inline_data);

SAME_SIZE(ffv_qp_init_attr, ibv_qp_init_attr);
FIELD(ffv_qp_init_attr, qp_context, ibv_qp_init_attr, qp_context);
FIELD(ffv_qp_init_attr, send_cq, ibv_qp_init_attr, send_cq);
FIELD(ffv_qp_init_attr, recv_cq, ibv_qp_init_attr, recv_cq);
FIELD(ffv_qp_init_attr, srq, ibv_qp_init_attr, srq);
FIELD(ffv_qp_init_attr, cap, ibv_qp_init_attr, cap);
FIELD(ffv_qp_init_attr, qp_type, ibv_qp_init_attr, qp_type);
FIELD(ffv_qp_init_attr, sq_sig_all, ibv_qp_init_attr, sq_sig_all);

SAME_SIZE(ffv_qp_init_attr_ex, ibv_qp_init_attr_ex);
FIELD(ffv_qp_init_attr_ex, qp_context, ibv_qp_init_attr_ex, qp_context);
FIELD(ffv_qp_init_attr_ex, send_cq, ibv_qp_init_attr_ex, send_cq);
FIELD(ffv_qp_init_attr_ex, recv_cq, ibv_qp_init_attr_ex, recv_cq);
FIELD(ffv_qp_init_attr_ex, srq, ibv_qp_init_attr_ex, srq);
FIELD(ffv_qp_init_attr_ex, cap, ibv_qp_init_attr_ex, cap);
FIELD(ffv_qp_init_attr_ex, qp_type, ibv_qp_init_attr_ex, qp_type);
FIELD(ffv_qp_init_attr_ex, sq_sig_all, ibv_qp_init_attr_ex, sq_sig_all);
FIELD(ffv_qp_init_attr_ex, comp_mask, ibv_qp_init_attr_ex, comp_mask);
FIELD(ffv_qp_init_attr_ex, pd, ibv_qp_init_attr_ex, pd);
FIELD(ffv_qp_init_attr_ex, xrcd, ibv_qp_init_attr_ex, xrcd);
FIELD(ffv_qp_init_attr_ex, create_flags, ibv_qp_init_attr_ex, create_flags);
FIELD(ffv_qp_init_attr_ex, max_tso_header, ibv_qp_init_attr_ex, max_tso_header);
FIELD(ffv_qp_init_attr_ex, rwq_ind_tbl, ibv_qp_init_attr_ex, rwq_ind_tbl);
FIELD(ffv_qp_init_attr_ex, rx_hash_conf, ibv_qp_init_attr_ex, rx_hash_conf);
FIELD(ffv_qp_init_attr_ex, source_qpn, ibv_qp_init_attr_ex, source_qpn);
FIELD(ffv_qp_init_attr_ex, send_ops_flags, ibv_qp_init_attr_ex, send_ops_flags);
FIELD(ffv_qp_init_attr_ex, rx_hash_conf.rx_hash_fields_mask, ibv_qp_init_attr_ex, rx_hash_conf.rx_hash_fields_mask);
FIELD(ffv_qp_init_attr_ex, rx_hash_conf.rx_hash_key, ibv_qp_init_attr_ex, rx_hash_conf.rx_hash_key);
VALUE(QP_INIT_ATTR_PD);
VALUE(QP_INIT_ATTR_XRCD);
VALUE(QP_INIT_ATTR_CREATE_FLAGS);
VALUE(QP_INIT_ATTR_MAX_TSO_HEADER);
VALUE(QP_INIT_ATTR_IND_TABLE);
VALUE(QP_INIT_ATTR_RX_HASH);
VALUE(QP_INIT_ATTR_SEND_OPS_FLAGS);

SAME_SIZE(ffv_qp_attr, ibv_qp_attr);
FIELD(ffv_qp_attr, qp_state, ibv_qp_attr, qp_state);
FIELD(ffv_qp_attr, cur_qp_state, ibv_qp_attr, cur_qp_state);
FIELD(ffv_qp_attr, path_mtu, ibv_qp_attr, path_mtu);
FIELD(ffv_qp_attr, path_mig_state, ibv_qp_attr, path_mig_state);
FIELD(ffv_qp_attr, qkey, ibv_qp_attr, qkey);
FIELD(ffv_qp_attr, rq_psn, ibv_qp_attr, rq_psn);
FIELD(ffv_qp_attr, sq_psn, ibv_qp_attr, sq_psn);
FIELD(ffv_qp_attr, dest_qp_num, ibv_qp_attr, dest_qp_num);
FIELD(ffv_qp_attr, qp_access_flags, ibv_qp_attr, qp_access_flags);
FIELD(ffv_qp_attr, cap, ibv_qp_attr, cap);
FIELD(ffv_qp_attr, ah_attr, ibv_qp_attr, ah_attr);
FIELD(ffv_qp_attr, alt_ah_attr, ibv_qp_attr, alt_ah_attr);
FIELD(ffv_qp_attr, pkey_index, ibv_qp_attr, pkey_index);
FIELD(ffv_qp_attr, alt_pkey_index, ibv_qp_attr, alt_pkey_index);
FIELD(ffv_qp_attr, en_sqd_async_notify, ibv_qp_attr, en_sqd_async_notify);
FIELD(ffv_qp_attr, sq_draining, ibv_qp_attr, sq_draining);
FIELD(ffv_qp_attr, max_rd_atomic, ibv_qp_attr, max_rd_atomic);
FIELD(ffv_qp_attr, max_dest_rd_atomic, ibv_qp_attr, max_dest_rd_atomic);
FIELD(ffv_qp_attr, min_rnr_timer, ibv_qp_attr, min_rnr_timer);
FIELD(ffv_qp_attr, port_num, ibv_qp_attr, port_num);
FIELD(ffv_qp_attr, timeout, ibv_qp_attr, timeout);
FIELD(ffv_qp_attr, retry_cnt, ibv_qp_attr, retry_cnt);
FIELD(ffv_qp_attr, rnr_retry, ibv_qp_attr, rnr_retry);
FIELD(ffv_qp_attr, alt_port_num, ibv_qp_attr, alt_port_num);
FIELD(ffv_qp_attr, alt_timeout, ibv_qp_attr, alt_timeout);
FIELD(ffv_qp_attr, rate_limit, ibv_qp_attr, rate_limit);

SAME_SIZE(ffv_srq_attr, ibv_srq_attr);
FIELD(ffv_srq_attr, max_wr, ibv_srq_attr, max_wr);
FIELD(ffv_srq_attr, max_sge, ibv_srq_attr, max_sge);
FIELD(ffv_srq_attr, srq_limit, ibv_srq_attr, srq_limit);
SAME_SIZE(ffv_srq_init_attr, ibv_srq_init_attr);
FIELD(ffv_srq_init_attr, srq_context, ibv_srq_init_attr, srq_context);
FIELD(ffv_srq_init_attr, attr, ibv_srq_init_attr, attr);

SAME_SIZE(ffv_device_attr, ibv_device_attr);
FIELD(ffv_device_attr, fw_ver, ibv_device_attr, fw_ver);
FIELD(ffv_device_attr, node_guid_be, ibv_device_attr, node_guid);
FIELD(ffv_device_attr, sys_image_guid_be, ibv_device_attr, sys_image_guid);
FIELD(ffv_device_attr, max_mr_size, ibv_device_attr, max_mr_size);
FIELD(ffv_device_attr, page_size_cap, ibv_device_attr, page_size_cap);
FIELD(ffv_device_attr, vendor_id, ibv_device_attr, vendor_id);
FIELD(ffv_device_attr, vendor_part_id, ibv_device_attr, vendor_part_id);
FIELD(ffv_device_attr, hw_ver, ibv_device_attr, hw_ver);
FIELD(ffv_device_attr, max_qp, ibv_device_attr, max_qp);
FIELD(ffv_device_attr, max_qp_wr, ibv_device_attr, max_qp_wr);
FIELD(ffv_device_attr, device_cap_flags, ibv_device_attr, device_cap_flags);
FIELD(ffv_device_attr, max_sge, ibv_device_attr, max_sge);
FIELD(ffv_device_attr, max_sge_rd, ibv_device_attr, max_sge_rd);
FIELD(ffv_device_attr, max_cq, ibv_device_attr, max_cq);
FIELD(ffv_device_attr, max_cqe, ibv_device_attr, max_cqe);
FIELD(ffv_device_attr, max_mr, ibv_device_attr, max_mr);
FIELD(ffv_device_attr, max_pd, ibv_device_attr, max_pd);
FIELD(ffv_device_attr, max_qp_rd_atom, ibv_device_attr, max_qp_rd_atom);
FIELD(ffv_device_attr, max_ee_rd_atom, ibv_device_attr, max_ee_rd_atom);
FIELD(ffv_device_attr, max_res_rd_atom, ibv_device_attr, max_res_rd_atom);
FIELD(ffv_device_attr, max_qp_init_rd_atom, ibv_device_attr, max_qp_init_rd_atom);
FIELD(ffv_device_attr, max_ee_init_rd_atom, ibv_device_attr, max_ee_init_rd_atom);
FIELD(ffv_device_attr, atomic_cap, ibv_device_attr, atomic_cap);
FIELD(ffv_device_attr, max_ee, ibv_device_attr, max_ee);
FIELD(ffv_device_attr, max_rdd, ibv_device_attr, max_rdd);
FIELD(ffv_device_attr, max_mw, ibv_device_attr, max_mw);
FIELD(ffv_device_attr, max_raw_ipv6_qp, ibv_device_attr, max_raw_ipv6_qp);
FIELD(ffv_device_attr, max_raw_ethy_qp, ibv_device_attr, max_raw_ethy_qp);
FIELD(ffv_device_attr, max_mcast_grp, ibv_device_attr, max_mcast_grp);
FIELD(ffv_device_attr, max_mcast_qp_attach, ibv_device_attr, max_mcast_qp_attach);
FIELD(ffv_device_attr, max_total_mcast_qp_attach, ibv_device_attr, max_total_mcast_qp_attach);
FIELD(ffv_device_attr, max_ah, ibv_device_attr, max_ah);
FIELD(ffv_device_attr, max_fmr, ibv_device_attr, max_fmr);
FIELD(ffv_device_attr, max_map_per_fmr, ibv_device_attr, max_map_per_fmr);
FIELD(ffv_device_attr, max_srq, ibv_device_attr, max_srq);
FIELD(ffv_device_attr, max_srq_wr, ibv_device_attr, max_srq_wr);
FIELD(ffv_device_attr, max_srq_sge, ibv_device_attr, max_srq_sge);
FIELD(ffv_device_attr, max_pkeys, ibv_device_attr, max_pkeys);
FIELD(ffv_device_attr, local_ca_ack_delay, ibv_device_attr, local_ca_ack_delay);
FIELD(ffv_device_attr, phys_port_cnt, ibv_device_attr, phys_port_cnt);

SAME_SIZE(ffv_cq_init_attr_ex, ibv_cq_init_attr_ex);
FIELD(ffv_cq_init_attr_ex, cqe, ibv_cq_init_attr_ex, cqe);
FIELD(ffv_cq_init_attr_ex, cq_context, ibv_cq_init_attr_ex, cq_context);
FIELD(ffv_cq_init_attr_ex, channel, ibv_cq_init_attr_ex, channel);
FIELD(ffv_cq_init_attr_ex, comp_vector, ibv_cq_init_attr_ex, comp_vector);
FIELD(ffv_cq_init_attr_ex, wc_flags, ibv_cq_init_attr_ex, wc_flags);
FIELD(ffv_cq_init_attr_ex, comp_mask, ibv_cq_init_attr_ex, comp_mask);
FIELD(ffv_cq_init_attr_ex, flags, ibv_cq_init_attr_ex, flags);
FIELD(ffv_cq_init_attr_ex, parent_domain, ibv_cq_init_attr_ex, parent_domain);
SAME_SIZE(ffv_poll_cq_attr, ibv_poll_cq_attr);
SAME_SIZE(ffv_modify_cq_attr, ibv_modify_cq_attr);
FIELD(ffv_modify_cq_attr, attr_mask, ibv_modify_cq_attr, attr_mask);
FIELD(ffv_modify_cq_attr, moderate.cq_count, ibv_modify_cq_attr, moderate.cq_count);
FIELD(ffv_modify_cq_attr, moderate.cq_period, ibv_modify_cq_attr, moderate.cq_period);
VALUE(CQ_ATTR_MODERATE);
VALUE(WC_EX_WITH_BYTE_LEN);
VALUE(WC_EX_WITH_IMM);
VALUE(WC_EX_WITH_QP_NUM);
VALUE(WC_EX_WITH_SRC_QP);
VALUE(WC_EX_WITH_SLID);
VALUE(WC_EX_WITH_SL);
VALUE(WC_EX_WITH_DLID_PATH_BITS);
VALUE(WC_EX_WITH_COMPLETION_TIMESTAMP);
VALUE(WC_EX_WITH_CVLAN);
VALUE(WC_EX_WITH_FLOW_TAG);
VALUE(WC_EX_WITH_TM_INFO);
VALUE(WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK);
VALUE(CQ_INIT_ATTR_MASK_FLAGS);
VALUE(CQ_INIT_ATTR_MASK_PD);
VALUE(CREATE_CQ_ATTR_SINGLE_THREADED);
VALUE(CREATE_CQ_ATTR_IGNORE_OVERRUN);

SAME_SIZE(ffv_qp_rate_limit_attr, ibv_qp_rate_limit_attr);
FIELD(ffv_qp_rate_limit_attr, rate_limit, ibv_qp_rate_limit_attr, rate_limit);
FIELD(ffv_qp_rate_limit_attr, max_burst_sz, ibv_qp_rate_limit_attr, max_burst_sz);
FIELD(ffv_qp_rate_limit_attr, typical_pkt_sz, ibv_qp_rate_limit_attr, typical_pkt_sz);
FIELD(ffv_qp_rate_limit_attr, comp_mask, ibv_qp_rate_limit_attr, comp_mask);
SAME_SIZE(ffv_data_buf, ibv_data_buf);
FIELD(ffv_data_buf, addr, ibv_data_buf, addr);
FIELD(ffv_data_buf, length, ibv_data_buf, length);
VALUE(QP_EX_WITH_RDMA_WRITE);
VALUE(QP_EX_WITH_RDMA_WRITE_WITH_IMM);
VALUE(QP_EX_WITH_SEND);
VALUE(QP_EX_WITH_SEND_WITH_IMM);
VALUE(QP_EX_WITH_RDMA_READ);
VALUE(QP_EX_WITH_ATOMIC_CMP_AND_SWP);
VALUE(QP_EX_WITH_ATOMIC_FETCH_AND_ADD);
VALUE(QP_EX_WITH_LOCAL_INV);
VALUE(QP_EX_WITH_BIND_MW);
VALUE(QP_EX_WITH_SEND_WITH_INV);
VALUE(QP_EX_WITH_TSO);
VALUE(QP_EX_WITH_ATOMIC_WRITE);
VALUE(WR_ATOMIC_WRITE);
VALUE(WC_ATOMIC_WRITE);

SAME_SIZE(ffv_odp_caps, ibv_odp_caps);
FIELD(ffv_odp_caps, general_caps, ibv_odp_caps, general_caps);
FIELD(ffv_odp_caps, per_transport_caps.rc_odp_caps, ibv_odp_caps, per_transport_caps.rc_odp_caps);
FIELD(ffv_odp_caps, per_transport_caps.uc_odp_caps, ibv_odp_caps, per_transport_caps.uc_odp_caps);
FIELD(ffv_odp_caps, per_transport_caps.ud_odp_caps, ibv_odp_caps, per_transport_caps.ud_odp_caps);

SAME_SIZE(ffv_tso_caps, ibv_tso_caps);
FIELD(ffv_tso_caps, max_tso, ibv_tso_caps, max_tso);
FIELD(ffv_tso_caps, supported_qpts, ibv_tso_caps, supported_qpts);

SAME_SIZE(ffv_rss_caps, ibv_rss_caps);
FIELD(ffv_rss_caps, supported_qpts, ibv_rss_caps, supported_qpts);
FIELD(ffv_rss_caps, max_rwq_indirection_tables, ibv_rss_caps, max_rwq_indirection_tables);
FIELD(ffv_rss_caps, max_rwq_indirection_table_size, ibv_rss_caps, max_rwq_indirection_table_size);
FIELD(ffv_rss_caps, rx_hash_fields_mask, ibv_rss_caps, rx_hash_fields_mask);
FIELD(ffv_rss_caps, rx_hash_function, ibv_rss_caps, rx_hash_function);

SAME_SIZE(ffv_packet_pacing_caps, ibv_packet_pacing_caps);
FIELD(ffv_packet_pacing_caps, qp_rate_limit_min, ibv_packet_pacing_caps, qp_rate_limit_min);
FIELD(ffv_packet_pacing_caps, qp_rate_limit_max, ibv_packet_pacing_caps, qp_rate_limit_max);
FIELD(ffv_packet_pacing_caps, supported_qpts, ibv_packet_pacing_caps, supported_qpts);

SAME_SIZE(ffv_tm_caps, ibv_tm_caps);
FIELD(ffv_tm_caps, max_rndv_hdr_size, ibv_tm_caps, max_rndv_hdr_size);
FIELD(ffv_tm_caps, max_num_tags, ibv_tm_caps, max_num_tags);
FIELD(ffv_tm_caps, flags, ibv_tm_caps, flags);
FIELD(ffv_tm_caps, max_ops, ibv_tm_caps, max_ops);
FIELD(ffv_tm_caps, max_sge, ibv_tm_caps, max_sge);

SAME_SIZE(ffv_cq_moderation_caps, ibv_cq_moderation_caps);
FIELD(ffv_cq_moderation_caps, max_cq_count, ibv_cq_moderation_caps, max_cq_count);
FIELD(ffv_cq_moderation_caps, max_cq_period, ibv_cq_moderation_caps, max_cq_period);

SAME_SIZE(ffv_pci_atomic_caps, ibv_pci_atomic_caps);
FIELD(ffv_pci_atomic_caps, fetch_add, ibv_pci_atomic_caps, fetch_add);
FIELD(ffv_pci_atomic_caps, swap, ibv_pci_atomic_caps, swap);
FIELD(ffv_pci_atomic_caps, compare_swap, ibv_pci_atomic_caps, compare_swap);

SAME_SIZE(ffv_device_attr_ex, ibv_device_attr_ex);
FIELD(ffv_device_attr_ex, orig_attr, ibv_device_attr_ex, orig_attr);
FIELD(ffv_device_attr_ex, comp_mask, ibv_device_attr_ex, comp_mask);
FIELD(ffv_device_attr_ex, odp_caps, ibv_device_attr_ex, odp_caps);
FIELD(ffv_device_attr_ex, completion_timestamp_mask, ibv_device_attr_ex, completion_timestamp_mask);
FIELD(ffv_device_attr_ex, hca_core_clock, ibv_device_attr_ex, hca_core_clock);
FIELD(ffv_device_attr_ex, device_cap_flags_ex, ibv_device_attr_ex, device_cap_flags_ex);
FIELD(ffv_device_attr_ex, tso_caps, ibv_device_attr_ex, tso_caps);
FIELD(ffv_device_attr_ex, rss_caps, ibv_device_attr_ex, rss_caps);
FIELD(ffv_device_attr_ex, max_wq_type_rq, ibv_device_attr_ex, max_wq_type_rq);
FIELD(ffv_device_attr_ex, packet_pacing_caps, ibv_device_attr_ex, packet_pacing_caps);
FIELD(ffv_device_attr_ex, raw_packet_caps, ibv_device_attr_ex, raw_packet_caps);
FIELD(ffv_device_attr_ex, tm_caps, ibv_device_attr_ex, tm_caps);
FIELD(ffv_device_attr_ex, cq_mod_caps, ibv_device_attr_ex, cq_mod_caps);
FIELD(ffv_device_attr_ex, max_dm_size, ibv_device_attr_ex, max_dm_size);
FIELD(ffv_device_attr_ex, pci_atomic_caps, ibv_device_attr_ex, pci_atomic_caps);
FIELD(ffv_device_attr_ex, xrc_odp_caps, ibv_device_attr_ex, xrc_odp_caps);
FIELD(ffv_device_attr_ex, phys_port_cnt_ex, ibv_device_attr_ex, phys_port_cnt_ex);

SAME_SIZE(ffv_flow_attr, ibv_flow_attr);
FIELD(ffv_flow_attr, comp_mask, ibv_flow_attr, comp_mask);
FIELD(ffv_flow_attr, type, ibv_flow_attr, type);
FIELD(ffv_flow_attr, size, ibv_flow_attr, size);
FIELD(ffv_flow_attr, priority, ibv_flow_attr, priority);
FIELD(ffv_flow_attr, num_of_specs, ibv_flow_attr, num_of_specs);
FIELD(ffv_flow_attr, port, ibv_flow_attr, port);
FIELD(ffv_flow_attr, flags, ibv_flow_attr, flags);

SAME_SIZE(ffv_flow_eth_filter, ibv_flow_eth_filter);
FIELD(ffv_flow_eth_filter, dst_mac, ibv_flow_eth_filter, dst_mac);
FIELD(ffv_flow_eth_filter, src_mac, ibv_flow_eth_filter, src_mac);
FIELD(ffv_flow_eth_filter, ether_type_be, ibv_flow_eth_filter, ether_type);
FIELD(ffv_flow_eth_filter, vlan_tag_be, ibv_flow_eth_filter, vlan_tag);

SAME_SIZE(ffv_flow_ipv4_filter, ibv_flow_ipv4_filter);
FIELD(ffv_flow_ipv4_filter, src_ip_be, ibv_flow_ipv4_filter, src_ip);
FIELD(ffv_flow_ipv4_filter, dst_ip_be, ibv_flow_ipv4_filter, dst_ip);

SAME_SIZE(ffv_flow_ipv4_ext_filter, ibv_flow_ipv4_ext_filter);
FIELD(ffv_flow_ipv4_ext_filter, src_ip_be, ibv_flow_ipv4_ext_filter, src_ip);
FIELD(ffv_flow_ipv4_ext_filter, dst_ip_be, ibv_flow_ipv4_ext_filter, dst_ip);
FIELD(ffv_flow_ipv4_ext_filter, proto, ibv_flow_ipv4_ext_filter, proto);
FIELD(ffv_flow_ipv4_ext_filter, tos, ibv_flow_ipv4_ext_filter, tos);
FIELD(ffv_flow_ipv4_ext_filter, ttl, ibv_flow_ipv4_ext_filter, ttl);
FIELD(ffv_flow_ipv4_ext_filter, flags, ibv_flow_ipv4_ext_filter, flags);

SAME_SIZE(ffv_flow_ipv6_filter, ibv_flow_ipv6_filter);
FIELD(ffv_flow_ipv6_filter, src_ip, ibv_flow_ipv6_filter, src_ip);
FIELD(ffv_flow_ipv6_filter, dst_ip, ibv_flow_ipv6_filter, dst_ip);
FIELD(ffv_flow_ipv6_filter, flow_label_be, ibv_flow_ipv6_filter, flow_label);
FIELD(ffv_flow_ipv6_filter, next_hdr, ibv_flow_ipv6_filter, next_hdr);
FIELD(ffv_flow_ipv6_filter, traffic_class, ibv_flow_ipv6_filter, traffic_class);
FIELD(ffv_flow_ipv6_filter, hop_limit, ibv_flow_ipv6_filter, hop_limit);

SAME_SIZE(ffv_flow_tcp_udp_filter, ibv_flow_tcp_udp_filter);
FIELD(ffv_flow_tcp_udp_filter, dst_port_be, ibv_flow_tcp_udp_filter, dst_port);
FIELD(ffv_flow_tcp_udp_filter, src_port_be, ibv_flow_tcp_udp_filter, src_port);

SAME_SIZE(ffv_flow_spec_eth, ibv_flow_spec_eth);
FIELD(ffv_flow_spec_eth, type, ibv_flow_spec_eth, type);
FIELD(ffv_flow_spec_eth, size, ibv_flow_spec_eth, size);
FIELD(ffv_flow_spec_eth, val, ibv_flow_spec_eth, val);
FIELD(ffv_flow_spec_eth, mask, ibv_flow_spec_eth, mask);

SAME_SIZE(ffv_flow_spec_ipv4, ibv_flow_spec_ipv4);
FIELD(ffv_flow_spec_ipv4, type, ibv_flow_spec_ipv4, type);
FIELD(ffv_flow_spec_ipv4, size, ibv_flow_spec_ipv4, size);
FIELD(ffv_flow_spec_ipv4, val, ibv_flow_spec_ipv4, val);
FIELD(ffv_flow_spec_ipv4, mask, ibv_flow_spec_ipv4, mask);

SAME_SIZE(ffv_flow_spec_ipv4_ext, ibv_flow_spec_ipv4_ext);
FIELD(ffv_flow_spec_ipv4_ext, type, ibv_flow_spec_ipv4_ext, type);
FIELD(ffv_flow_spec_ipv4_ext, size, ibv_flow_spec_ipv4_ext, size);
FIELD(ffv_flow_spec_ipv4_ext, val, ibv_flow_spec_ipv4_ext, val);
FIELD(ffv_flow_spec_ipv4_ext, mask, ibv_flow_spec_ipv4_ext, mask);

SAME_SIZE(ffv_flow_spec_ipv6, ibv_flow_spec_ipv6);
FIELD(ffv_flow_spec_ipv6, type, ibv_flow_spec_ipv6, type);
FIELD(ffv_flow_spec_ipv6, size, ibv_flow_spec_ipv6, size);
FIELD(ffv_flow_spec_ipv6, val, ibv_flow_spec_ipv6, val);
FIELD(ffv_flow_spec_ipv6, mask, ibv_flow_spec_ipv6, mask);

SAME_SIZE(ffv_flow_spec_tcp_udp, ibv_flow_spec_tcp_udp);
FIELD(ffv_flow_spec_tcp_udp, type, ibv_flow_spec_tcp_udp, type);
FIELD(ffv_flow_spec_tcp_udp, size, ibv_flow_spec_tcp_udp, size);
FIELD(ffv_flow_spec_tcp_udp, val, ibv_flow_spec_tcp_udp, val);
FIELD(ffv_flow_spec_tcp_udp, mask, ibv_flow_spec_tcp_udp, mask);

SAME_SIZE(ffv_wq_init_attr, ibv_wq_init_attr);
FIELD(ffv_wq_init_attr, wq_context, ibv_wq_init_attr, wq_context);
FIELD(ffv_wq_init_attr, wq_type, ibv_wq_init_attr, wq_type);
FIELD(ffv_wq_init_attr, max_wr, ibv_wq_init_attr, max_wr);
FIELD(ffv_wq_init_attr, max_sge, ibv_wq_init_attr, max_sge);
FIELD(ffv_wq_init_attr, pd, ibv_wq_init_attr, pd);
FIELD(ffv_wq_init_attr, cq, ibv_wq_init_attr, cq);
FIELD(ffv_wq_init_attr, comp_mask, ibv_wq_init_attr, comp_mask);
FIELD(ffv_wq_init_attr, create_flags, ibv_wq_init_attr, create_flags);

SAME_SIZE(ffv_wq_attr, ibv_wq_attr);
FIELD(ffv_wq_attr, attr_mask, ibv_wq_attr, attr_mask);
FIELD(ffv_wq_attr, wq_state, ibv_wq_attr, wq_state);
FIELD(ffv_wq_attr, curr_wq_state, ibv_wq_attr, curr_wq_state);
FIELD(ffv_wq_attr, flags, ibv_wq_attr, flags);
FIELD(ffv_wq_attr, flags_mask, ibv_wq_attr, flags_mask);

SAME_SIZE(ffv_rwq_ind_table_init_attr, ibv_rwq_ind_table_init_attr);
FIELD(ffv_rwq_ind_table_init_attr, log_ind_tbl_size, ibv_rwq_ind_table_init_attr, log_ind_tbl_size);
FIELD(ffv_rwq_ind_table_init_attr, ind_tbl, ibv_rwq_ind_table_init_attr, ind_tbl);
FIELD(ffv_rwq_ind_table_init_attr, comp_mask, ibv_rwq_ind_table_init_attr, comp_mask);

SAME_SIZE(ffv_port_attr, ibv_port_attr);
FIELD(ffv_port_attr, state, ibv_port_attr, state);
FIELD(ffv_port_attr, max_mtu, ibv_port_attr, max_mtu);
FIELD(ffv_port_attr, active_mtu, ibv_port_attr, active_mtu);
FIELD(ffv_port_attr, gid_tbl_len, ibv_port_attr, gid_tbl_len);
FIELD(ffv_port_attr, port_cap_flags, ibv_port_attr, port_cap_flags);
FIELD(ffv_port_attr, max_msg_sz, ibv_port_attr, max_msg_sz);
FIELD(ffv_port_attr, bad_pkey_cntr, ibv_port_attr, bad_pkey_cntr);
FIELD(ffv_port_attr, qkey_viol_cntr, ibv_port_attr, qkey_viol_cntr);
FIELD(ffv_port_attr, pkey_tbl_len, ibv_port_attr, pkey_tbl_len);
FIELD(ffv_port_attr, lid, ibv_port_attr, lid);
FIELD(ffv_port_attr, sm_lid, ibv_port_attr, sm_lid);
FIELD(ffv_port_attr, lmc, ibv_port_attr, lmc);
FIELD(ffv_port_attr, max_vl_num, ibv_port_attr, max_vl_num);
FIELD(ffv_port_attr, sm_sl, ibv_port_attr, sm_sl);
FIELD(ffv_port_attr, subnet_timeout, ibv_port_attr, subnet_timeout);
FIELD(ffv_port_attr, init_type_reply, ibv_port_attr, init_type_reply);
FIELD(ffv_port_attr, active_width, ibv_port_attr, active_width);
FIELD(ffv_port_attr, active_speed, ibv_port_attr, active_speed);
FIELD(ffv_port_attr, phys_state, ibv_port_attr, phys_state);
FIELD(ffv_port_attr, link_layer, ibv_port_attr, link_layer);
FIELD(ffv_port_attr, flags, ibv_port_attr, flags);
FIELD(ffv_port_attr, port_cap_flags2, ibv_port_attr, port_cap_flags2);

SAME_SIZE(ffv_gid_entry, ibv_gid_entry);
FIELD(ffv_gid_entry, gid, ibv_gid_entry, gid);
FIELD(ffv_gid_entry, gid_index, ibv_gid_entry, gid_index);
FIELD(ffv_gid_entry, port_num, ibv_gid_entry, port_num);
FIELD(ffv_gid_entry, gid_type, ibv_gid_entry, gid_type);
FIELD(ffv_gid_entry, ndev_ifindex, ibv_gid_entry, ndev_ifindex);

VALUE(QPT_RC);
VALUE(QPT_UC);
VALUE(QPT_UD);
VALUE(QPS_RESET);
VALUE(QPS_INIT);
VALUE(QPS_RTR);
VALUE(QPS_RTS);
VALUE(QPS_SQD);
VALUE(QPS_SQE);
VALUE(QPS_ERR);
VALUE(QPS_UNKNOWN);
VALUE(QP_STATE);
VALUE(QP_CUR_STATE);
VALUE(QP_EN_SQD_ASYNC_NOTIFY);
VALUE(QP_ACCESS_FLAGS);
VALUE(QP_PKEY_INDEX);
VALUE(QP_PORT);
VALUE(QP_QKEY);
VALUE(QP_AV);
VALUE(QP_PATH_MTU);
VALUE(QP_TIMEOUT);
VALUE(QP_RETRY_CNT);
VALUE(QP_RNR_RETRY);
VALUE(QP_RQ_PSN);
VALUE(QP_MAX_QP_RD_ATOMIC);
VALUE(QP_ALT_PATH);
VALUE(QP_MIN_RNR_TIMER);
VALUE(QP_SQ_PSN);
VALUE(QP_MAX_DEST_RD_ATOMIC);
VALUE(QP_PATH_MIG_STATE);
VALUE(QP_CAP);
VALUE(QP_DEST_QPN);
VALUE(QP_RATE_LIMIT);
VALUE(WR_RDMA_WRITE);
VALUE(WR_RDMA_WRITE_WITH_IMM);
VALUE(WR_SEND);
VALUE(WR_SEND_WITH_IMM);
VALUE(WR_RDMA_READ);
VALUE(WR_ATOMIC_CMP_AND_SWP);
VALUE(WR_ATOMIC_FETCH_AND_ADD);
VALUE(WR_LOCAL_INV);
VALUE(WR_BIND_MW);
VALUE(WR_SEND_WITH_INV);
VALUE(SEND_FENCE);
VALUE(SEND_SIGNALED);
VALUE(SEND_SOLICITED);
VALUE(SEND_INLINE);
VALUE(WC_SUCCESS);
VALUE(WC_LOC_LEN_ERR);
VALUE(WC_LOC_QP_OP_ERR);
VALUE(WC_LOC_EEC_OP_ERR);
VALUE(WC_LOC_PROT_ERR);
VALUE(WC_WR_FLUSH_ERR);
VALUE(WC_MW_BIND_ERR);
VALUE(WC_BAD_RESP_ERR);
VALUE(WC_LOC_ACCESS_ERR);
VALUE(WC_REM_INV_REQ_ERR);
VALUE(WC_REM_ACCESS_ERR);
VALUE(WC_REM_OP_ERR);
VALUE(WC_RETRY_EXC_ERR);
VALUE(WC_RNR_RETRY_EXC_ERR);
VALUE(WC_LOC_RDD_VIOL_ERR);
VALUE(WC_REM_INV_RD_REQ_ERR);
VALUE(WC_REM_ABORT_ERR);
VALUE(WC_INV_EECN_ERR);
VALUE(WC_INV_EEC_STATE_ERR);
VALUE(WC_FATAL_ERR);
VALUE(WC_RESP_TIMEOUT_ERR);
VALUE(WC_GENERAL_ERR);
VALUE(WC_SEND);
VALUE(WC_RDMA_WRITE);
VALUE(WC_RDMA_READ);
VALUE(WC_COMP_SWAP);
VALUE(WC_FETCH_ADD);
VALUE(WC_BIND_MW);
VALUE(WC_LOCAL_INV);
VALUE(WC_RECV);
VALUE(WC_RECV_RDMA_WITH_IMM);
VALUE(WC_GRH);
VALUE(WC_WITH_IMM);
VALUE(WC_WITH_INV);
VALUE(ACCESS_LOCAL_WRITE);
VALUE(ACCESS_REMOTE_WRITE);
VALUE(ACCESS_REMOTE_READ);
VALUE(ACCESS_REMOTE_ATOMIC);
VALUE(ACCESS_MW_BIND);
VALUE(ACCESS_ZERO_BASED);
VALUE(ACCESS_ON_DEMAND);
VALUE(ACCESS_HUGETLB);
VALUE(ACCESS_RELAXED_ORDERING);
VALUE(FLOW_ATTR_NORMAL);
VALUE(FLOW_ATTR_ALL_DEFAULT);
VALUE(FLOW_ATTR_MC_DEFAULT);
VALUE(FLOW_ATTR_SNIFFER);
VALUE(FLOW_ATTR_FLAGS_DONT_TRAP);
VALUE(FLOW_ATTR_FLAGS_EGRESS);
VALUE(FLOW_SPEC_ETH);
VALUE(FLOW_SPEC_IPV4);
VALUE(FLOW_SPEC_IPV6);
VALUE(FLOW_SPEC_IPV4_EXT);
VALUE(FLOW_SPEC_TCP);
VALUE(FLOW_SPEC_UDP);
VALUE(QPT_RAW_PACKET);
VALUE(QP_CREATE_BLOCK_SELF_MCAST_LB);
VALUE(SEND_IP_CSUM);
VALUE(WC_IP_CSUM_OK);
VALUE(RAW_PACKET_CAP_IP_CSUM);
VALUE(RX_HASH_FUNC_TOEPLITZ);
VALUE(RX_HASH_SRC_IPV4);
VALUE(RX_HASH_DST_IPV4);
VALUE(RX_HASH_SRC_IPV6);
VALUE(RX_HASH_DST_IPV6);
VALUE(RX_HASH_SRC_PORT_TCP);
VALUE(RX_HASH_DST_PORT_TCP);
VALUE(RX_HASH_SRC_PORT_UDP);
VALUE(RX_HASH_DST_PORT_UDP);
VALUE(WQT_RQ);
VALUE(WQS_RESET);
VALUE(WQS_RDY);
VALUE(WQS_ERR);
VALUE(WQS_UNKNOWN);
VALUE(WQ_INIT_ATTR_FLAGS);
VALUE(WQ_ATTR_STATE);
VALUE(WQ_ATTR_CURR_STATE);
VALUE(WQ_ATTR_FLAGS);
VALUE(SRQ_MAX_WR);
VALUE(SRQ_LIMIT);
VALUE(EVENT_CQ_ERR);
VALUE(EVENT_QP_FATAL);
VALUE(EVENT_QP_REQ_ERR);
VALUE(EVENT_QP_ACCESS_ERR);
VALUE(EVENT_COMM_EST);
VALUE(EVENT_SQ_DRAINED);
VALUE(EVENT_DEVICE_FATAL);
VALUE(EVENT_SRQ_ERR);
VALUE(EVENT_SRQ_LIMIT_REACHED);
VALUE(EVENT_QP_LAST_WQE_REACHED);
#endif

int main(void)
{
#if HAVE_LIBIBVERBS
	puts("layout and values were checked by the compiler");
	return 0;
#else
	puts("SKIP: the headers of libibverbs (libibverbs-dev) are not installed");
	return 77;
#endif
}

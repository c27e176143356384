/* Structs and values of the connection manager's header are those of librdmacm: checked by the compiler where its headers
 * are installed (Debian: librdmacm-dev); elsewhere the test is skipped. */
#include <stdio.h>

#if HAVE_LIBRDMACM
#include <stddef.h>

#include <ffverbs/ffv.h>
#include <rdma/rdma_cma.h>

#define SAME_SIZE(ours, theirs) _Static_assert(sizeof(struct ours) == sizeof(struct theirs), "size of " #ours)
#define FIELD(ours, field, theirs, their_field)                                                                       \
	_Static_assert(offsetof(struct ours, field) == offsetof(struct theirs, their_field), #ours "." #field " moved"); \
	_Static_assert(sizeof(((struct ours *)0)->field) == sizeof(((struct theirs *)0)->their_field),                \
		       #ours "." #field " has another size")
#define VALUE(ours, theirs) _Static_assert((unsigned long)ours == (unsigned long)theirs, "value of " #ours)

SAME_SIZE(ffv_cm_id, rdma_cm_id);
FIELD(ffv_cm_id, verbs, rdma_cm_id, verbs);
FIELD(ffv_cm_id, channel, rdma_cm_id, channel);
FIELD(ffv_cm_id, context, rdma_cm_id, context);
FIELD(ffv_cm_id, qp, rdma_cm_id, qp);
FIELD(ffv_cm_id, route, rdma_cm_id, route);
FIELD(ffv_cm_id, ps, rdma_cm_id, ps);
FIELD(ffv_cm_id, port_num, rdma_cm_id, port_num);
FIELD(ffv_cm_id, event, rdma_cm_id, event);
FIELD(ffv_cm_id, send_cq_channel, rdma_cm_id, send_cq_channel);
FIELD(ffv_cm_id, send_cq, rdma_cm_id, send_cq);
FIELD(ffv_cm_id, recv_cq_channel, rdma_cm_id, recv_cq_channel);
FIELD(ffv_cm_id, recv_cq, rdma_cm_id, recv_cq);
FIELD(ffv_cm_id, srq, rdma_cm_id, srq);
FIELD(ffv_cm_id, pd, rdma_cm_id, pd);
FIELD(ffv_cm_id, qp_type, rdma_cm_id, qp_type);

SAME_SIZE(ffv_cm_event, rdma_cm_event);
FIELD(ffv_cm_event, id, rdma_cm_event, id);
FIELD(ffv_cm_event, listen_id, rdma_cm_event, listen_id);
FIELD(ffv_cm_event, event, rdma_cm_event, event);
FIELD(ffv_cm_event, status, rdma_cm_event, status);
FIELD(ffv_cm_event, param, rdma_cm_event, param);

SAME_SIZE(ffv_cm_conn_param, rdma_conn_param);
FIELD(ffv_cm_conn_param, private_data, rdma_conn_param, private_data);
FIELD(ffv_cm_conn_param, private_data_len, rdma_conn_param, private_data_len);
FIELD(ffv_cm_conn_param, responder_resources, rdma_conn_param, responder_resources);
FIELD(ffv_cm_conn_param, initiator_depth, rdma_conn_param, initiator_depth);
FIELD(ffv_cm_conn_param, flow_control, rdma_conn_param, flow_control);
FIELD(ffv_cm_conn_param, retry_count, rdma_conn_param, retry_count);
FIELD(ffv_cm_conn_param, rnr_retry_count, rdma_conn_param, rnr_retry_count);
FIELD(ffv_cm_conn_param, srq, rdma_conn_param, srq);
FIELD(ffv_cm_conn_param, qp_num, rdma_conn_param, qp_num);

SAME_SIZE(ffv_cm_ud_param, rdma_ud_param);
FIELD(ffv_cm_ud_param, private_data, rdma_ud_param, private_data);
FIELD(ffv_cm_ud_param, private_data_len, rdma_ud_param, private_data_len);
FIELD(ffv_cm_ud_param, ah_attr, rdma_ud_param, ah_attr);
FIELD(ffv_cm_ud_param, qp_num, rdma_ud_param, qp_num);
FIELD(ffv_cm_ud_param, qkey, rdma_ud_param, qkey);

SAME_SIZE(ffv_cm_join_attr, rdma_cm_join_mc_attr_ex);
FIELD(ffv_cm_join_attr, comp_mask, rdma_cm_join_mc_attr_ex, comp_mask);
FIELD(ffv_cm_join_attr, join_flags, rdma_cm_join_mc_attr_ex, join_flags);
FIELD(ffv_cm_join_attr, addr, rdma_cm_join_mc_attr_ex, addr);

SAME_SIZE(ffv_cm_route, rdma_route);
FIELD(ffv_cm_route, addr, rdma_route, addr);
FIELD(ffv_cm_route, path_rec, rdma_route, path_rec);
FIELD(ffv_cm_route, num_paths, rdma_route, num_paths);

SAME_SIZE(ffv_cm_ib_addr, rdma_ib_addr);
FIELD(ffv_cm_ib_addr, sgid, rdma_ib_addr, sgid);
FIELD(ffv_cm_ib_addr, dgid, rdma_ib_addr, dgid);

SAME_SIZE(ffv_cm_ece, ibv_ece);
FIELD(ffv_cm_ece, vendor_id, ibv_ece, vendor_id);
FIELD(ffv_cm_ece, options, ibv_ece, options);
FIELD(ffv_cm_ece, comp_mask, ibv_ece, comp_mask);
FIELD(ffv_cm_ib_addr, pkey_be, rdma_ib_addr, pkey);

SAME_SIZE(ffv_cm_addr, rdma_addr);
FIELD(ffv_cm_addr, src, rdma_addr, src_storage);
FIELD(ffv_cm_addr, dst, rdma_addr, dst_storage);
FIELD(ffv_cm_addr, ibaddr, rdma_addr, addr.ibaddr);

SAME_SIZE(ffv_cm_channel, rdma_event_channel);
FIELD(ffv_cm_channel, fd, rdma_event_channel, fd);

SAME_SIZE(ffv_cm_addrinfo, rdma_addrinfo);
FIELD(ffv_cm_addrinfo, flags, rdma_addrinfo, ai_flags);
FIELD(ffv_cm_addrinfo, family, rdma_addrinfo, ai_family);
FIELD(ffv_cm_addrinfo, qp_type, rdma_addrinfo, ai_qp_type);
FIELD(ffv_cm_addrinfo, port_space, rdma_addrinfo, ai_port_space);
FIELD(ffv_cm_addrinfo, src_len, rdma_addrinfo, ai_src_len);
FIELD(ffv_cm_addrinfo, dst_len, rdma_addrinfo, ai_dst_len);
FIELD(ffv_cm_addrinfo, src_addr, rdma_addrinfo, ai_src_addr);
FIELD(ffv_cm_addrinfo, dst_addr, rdma_addrinfo, ai_dst_addr);
FIELD(ffv_cm_addrinfo, src_canonname, rdma_addrinfo, ai_src_canonname);
FIELD(ffv_cm_addrinfo, dst_canonname, rdma_addrinfo, ai_dst_canonname);
FIELD(ffv_cm_addrinfo, route_len, rdma_addrinfo, ai_route_len);
FIELD(ffv_cm_addrinfo, route, rdma_addrinfo, ai_route);
FIELD(ffv_cm_addrinfo, connect_len, rdma_addrinfo, ai_connect_len);
FIELD(ffv_cm_addrinfo, connect, rdma_addrinfo, ai_connect);
FIELD(ffv_cm_addrinfo, next, rdma_addrinfo, ai_next);

VALUE(FFV_CM_EVENT_ADDR_RESOLVED, RDMA_CM_EVENT_ADDR_RESOLVED);
VALUE(FFV_CM_EVENT_ADDR_ERROR, RDMA_CM_EVENT_ADDR_ERROR);
VALUE(FFV_CM_EVENT_ROUTE_RESOLVED, RDMA_CM_EVENT_ROUTE_RESOLVED);
VALUE(FFV_CM_EVENT_ROUTE_ERROR, RDMA_CM_EVENT_ROUTE_ERROR);
VALUE(FFV_CM_EVENT_CONNECT_REQUEST, RDMA_CM_EVENT_CONNECT_REQUEST);
VALUE(FFV_CM_EVENT_CONNECT_RESPONSE, RDMA_CM_EVENT_CONNECT_RESPONSE);
VALUE(FFV_CM_EVENT_CONNECT_ERROR, RDMA_CM_EVENT_CONNECT_ERROR);
VALUE(FFV_CM_EVENT_UNREACHABLE, RDMA_CM_EVENT_UNREACHABLE);
VALUE(FFV_CM_EVENT_REJECTED, RDMA_CM_EVENT_REJECTED);
VALUE(FFV_CM_EVENT_ESTABLISHED, RDMA_CM_EVENT_ESTABLISHED);
VALUE(FFV_CM_EVENT_DISCONNECTED, RDMA_CM_EVENT_DISCONNECTED);
VALUE(FFV_CM_EVENT_DEVICE_REMOVAL, RDMA_CM_EVENT_DEVICE_REMOVAL);
VALUE(FFV_CM_EVENT_MULTICAST_JOIN, RDMA_CM_EVENT_MULTICAST_JOIN);
VALUE(FFV_CM_EVENT_MULTICAST_ERROR, RDMA_CM_EVENT_MULTICAST_ERROR);
VALUE(FFV_CM_EVENT_ADDR_CHANGE, RDMA_CM_EVENT_ADDR_CHANGE);
VALUE(FFV_CM_EVENT_TIMEWAIT_EXIT, RDMA_CM_EVENT_TIMEWAIT_EXIT);
VALUE(FFV_PS_IPOIB, RDMA_PS_IPOIB);
VALUE(FFV_PS_TCP, RDMA_PS_TCP);
VALUE(FFV_PS_UDP, RDMA_PS_UDP);
VALUE(FFV_PS_IB, RDMA_PS_IB);
VALUE(FFV_OPTION_ID_TOS, RDMA_OPTION_ID_TOS);
VALUE(FFV_OPTION_ID_REUSEADDR, RDMA_OPTION_ID_REUSEADDR);
VALUE(FFV_OPTION_ID_AFONLY, RDMA_OPTION_ID_AFONLY);
VALUE(FFV_OPTION_ID_ACK_TIMEOUT, RDMA_OPTION_ID_ACK_TIMEOUT);
VALUE(FFV_RAI_PASSIVE, RAI_PASSIVE);
VALUE(FFV_RAI_NUMERICHOST, RAI_NUMERICHOST);
VALUE(FFV_RAI_NOROUTE, RAI_NOROUTE);
VALUE(FFV_RAI_FAMILY, RAI_FAMILY);
VALUE(FFV_CM_UDP_QKEY, RDMA_UDP_QKEY);
VALUE(FFV_CM_MAX_RESPONDER_RESOURCES, RDMA_MAX_RESP_RES);
VALUE(FFV_CM_JOIN_ADDRESS, RDMA_CM_JOIN_MC_ATTR_ADDRESS);
VALUE(FFV_CM_JOIN_FLAGS, RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS);
VALUE(FFV_CM_JOIN_SENDONLY_FULLMEMBER, RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER);
#endif

int main(void)
{
#if HAVE_LIBRDMACM
	puts("layout and values were checked by the compiler");
	return 0;
#else
	puts("SKIP: the headers of librdmacm (librdmacm-dev) are not installed");
	return 77;
#endif
}

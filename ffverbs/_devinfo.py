"""What the device says of itself (`ffverbs devinfo`)."""

from typing import Any, Final

from rich.console import Console
from rich.table import Table

from ffverbs.device import (
    Context,
    Device,
    get_device_list,
    guid_to_hex,
    phys_state_to_str,
    port_state_to_str,
    translate_link_layer,
    translate_node_type,
    translate_transport_type,
)
from ffverbs.pyverbs_error import PyverbsRDMAError

__all__ = ["gather", "print_devices"]

_GID_TYPES: Final = {0: "IB", 1: "RoCE v1", 2: "RoCE v2"}
_LIMITS: Final = (
    "max_mr_size",
    "max_qp",
    "max_qp_wr",
    "max_sge",
    "max_sge_rd",
    "max_cq",
    "max_cqe",
    "max_mr",
    "max_pd",
    "max_qp_rd_atom",
    "max_qp_init_rd_atom",
    "max_ah",
    "max_srq",
    "max_srq_wr",
    "max_srq_sge",
    "max_mw",
)


def _port(context: Context, number: int) -> dict[str, Any]:
    attr = context.query_port(number)
    entries = [entry for entry in context.query_gid_table(attr.gid_tbl_len * 2) if entry.port_num == number]
    return {
        "port": number,
        "state": port_state_to_str(attr.state),
        "physical_state": phys_state_to_str(attr.phys_state),
        "link_layer": translate_link_layer(attr.link_layer),
        "active_mtu_bytes": 128 << int(attr.active_mtu),
        "max_message_bytes": attr.max_msg_sz,
        "gids": [
            {
                "index": entry.gid_index,
                "gid": entry.gid_str(),
                "type": _GID_TYPES.get(entry.gid_type, str(entry.gid_type)),
            }
            for entry in entries
        ],
    }


def _device(device: Device) -> dict[str, Any]:
    name = device.name.decode()
    with Context(name=name) as context:
        attr = context.query_device()
        return {
            "name": name,
            "guid": guid_to_hex(device.guid),
            "node_type": translate_node_type(device.node_type),
            "transport": translate_transport_type(device.transport_type),
            "firmware": attr.fw_version,
            "atomic_cap": int(attr.atomic_caps),
            "limits": {limit: getattr(attr, limit) for limit in _LIMITS},
            "ports": [_port(context, number) for number in range(1, attr.phys_port_cnt + 1)],
        }


def gather(name: str | None = None) -> list[dict[str, Any]]:
    """Return what each device (or the one of this name) says; PyverbsRDMAError for a name that there is not."""
    devices = get_device_list()
    chosen = [device for device in devices if name in (None, device.name.decode())]
    if not chosen:
        known = ", ".join(device.name.decode() for device in devices)
        raise PyverbsRDMAError(f"there is no device {name}: there is {known or 'none'}")
    return [_device(device) for device in chosen]


def print_devices(console: Console, devices: list[dict[str, Any]], verbose: bool) -> None:
    """Print what gather() found; the limits only if `verbose`."""
    for device in devices:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for field in ("guid", "node_type", "transport", "firmware"):
            table.add_row(field.replace("_", " "), str(device[field]))
        for limit, value in device["limits"].items() if verbose else ():
            table.add_row(limit, str(value))
        for port in device["ports"]:
            state = f"{port['state']}, {port['link_layer']}, MTU {port['active_mtu_bytes']}"
            table.add_row(f"port {port['port']}", state)
            for gid in port["gids"]:
                table.add_row(f"  GID {gid['index']}", f"{gid['gid']}  {gid['type']}")
        console.print(f"[bold]{device['name']}[/bold]", highlight=False)
        console.print(table, highlight=False)

/* Module ffverbs._calls: post and poll for Python, without what cffi's calls and a completion built in Python cost.
 *
 * It lies in the library of ffverbs._ffv, since there is one engine a process, and takes cffi's pointers. Verbs are the
 * engine's business and errors ffverbs/'s: here arguments become C and completions become objects. Everything runs
 * under the GIL but the engine's calls. Budget: no Python code and one object a completion. The state is the process's, as
 * cffi's is.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stddef.h>
#include <structmember.h>

#include <ffverbs/ffv.h>

#include "ffi/python_calls.h"

/* More completions than this are polled into memory of the heap. */
#define FEW 32
/* No array for more than these, or than the queue holds, is allocated, however many are asked for. */
#define MANY 256

/* What configure() is given. */
static PyObject *qp_type, *srq_type, *cq_type; /* cffi's pointer types */
static PyObject *send_wr_type, *recv_wr_type, *send_cell_type, *recv_cell_type;
static PyObject *check_u8, *check_u16, *check_u32, *check_u64; /* value -> int, or an exception */
static PyObject *statuses, *opcodes; /* mappings of int to the enum's member */
static PyObject *wc_class;           /* Completion, or a subclass that adds no fields */
static PyObject *raise_errno;        /* (errno, text), raises */
static allocfunc new_wc;

static void *pointer(PyObject *cdata, PyObject *c_type)
{
	void *found = ffv_python_pointer(cdata, c_type);

	if (!found && !PyErr_Occurred())
		PyErr_SetString(PyExc_TypeError, "a pointer is NULL");
	return found;
}

static int has_args(Py_ssize_t given, Py_ssize_t expected)
{
	if (given == expected)
		return 1;
	PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", expected, given);
	return 0;
}

/* ---- completions ---------------------------------------------------------------------------------------------- */

struct completion {
	PyObject_HEAD
	PyObject *weak_references;
	struct ffv_wc wc;
};

struct field {
	size_t offset, size_bytes;
	PyObject **check;
	PyObject **members; /* of an enum, else NULL */
};

static PyObject *field_get(PyObject *self, void *closure)
{
	const struct field *field = closure;
	const char *at = (const char *)&((struct completion *)self)->wc + field->offset;
	PyObject *number, *member;

	switch (field->size_bytes) {
	case 8:
		return PyLong_FromUnsignedLongLong(*(const uint64_t *)at);
	case 4:
		number = PyLong_FromUnsignedLong(*(const uint32_t *)at);
		break;
	case 2:
		return PyLong_FromLong(*(const uint16_t *)at);
	default:
		return PyLong_FromLong(*(const uint8_t *)at);
	}
	if (!field->members || !number)
		return number;
	member = PyObject_GetItem(*field->members, number);
	Py_DECREF(number);
	return member;
}

static int field_set(PyObject *self, PyObject *value, void *closure)
{
	const struct field *field = closure;
	char *at = (char *)&((struct completion *)self)->wc + field->offset;
	unsigned long long number;
	PyObject *checked;

	if (!value) {
		PyErr_SetString(PyExc_AttributeError, "a field of a completion cannot be deleted");
		return -1;
	}
	checked = PyObject_CallFunctionObjArgs(*field->check, value, NULL);
	if (!checked)
		return -1;
	number = PyLong_AsUnsignedLongLong(checked);
	Py_DECREF(checked);
	if (PyErr_Occurred())
		return -1;
	switch (field->size_bytes) {
	case 8:
		*(uint64_t *)at = number;
		break;
	case 4:
		*(uint32_t *)at = (uint32_t)number;
		break;
	case 2:
		*(uint16_t *)at = (uint16_t)number;
		break;
	default:
		*(uint8_t *)at = (uint8_t)number;
	}
	return 0;
}

#define FIELD(python_name, name, its_check, its_members, doc) \
	{ python_name, field_get, field_set, doc, \
	  &(struct field){ offsetof(struct ffv_wc, name), sizeof(((struct ffv_wc *)0)->name), &its_check, its_members } }

static PyGetSetDef completion_fields[] = {
	FIELD("wr_id", wr_id, check_u64, NULL, "The number that the work request carried."),
	FIELD("status", status, check_u32, &statuses, "How the work request ended."),
	FIELD("opcode", opcode, check_u32, &opcodes, "What kind of work request ended."),
	FIELD("vendor_err", vendor_err, check_u32, NULL, "The device's own error code."),
	FIELD("byte_len", byte_len, check_u32, NULL, "Bytes received or read (with the 40 bytes of GRH space on UD)."),
	FIELD("imm_data", imm_data_be, check_u32, NULL,
	      "Immediate data (raw, network order), or the invalidated key (host order)."),
	FIELD("qp_num", qp_num, check_u32, NULL, "Number of the local QP."),
	FIELD("src_qp", src_qp, check_u32, NULL, "Number of the sender's QP (UD)."),
	FIELD("wc_flags", wc_flags, check_u32, NULL, "Mask of ibv_wc_flags."),
	FIELD("pkey_index", pkey_index, check_u16, NULL, "Index of the partition key."),
	FIELD("slid", slid, check_u16, NULL, "The sender's LID."),
	FIELD("sl", sl, check_u8, NULL, "Service level."),
	FIELD("dlid_path_bits", dlid_path_bits, check_u8, NULL, "Low bits of the destination LID."),
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyObject *completion_copy_from(PyObject *self, PyObject *memory)
{
	Py_buffer given;

	if (PyObject_GetBuffer(memory, &given, PyBUF_SIMPLE) < 0)
		return NULL;
	if (given.len != sizeof(struct ffv_wc)) {
		PyBuffer_Release(&given);
		PyErr_SetString(PyExc_ValueError, "not the size of a struct ffv_wc");
		return NULL;
	}
	((struct completion *)self)->wc = *(const struct ffv_wc *)given.buf;
	PyBuffer_Release(&given);
	Py_RETURN_NONE;
}

static PyObject *completion_memory(PyObject *self, PyObject *unused)
{
	(void)unused;
	return PyBytes_FromStringAndSize((const char *)&((struct completion *)self)->wc, sizeof(struct ffv_wc));
}

static PyMethodDef completion_methods[] = {
	{ "_copy_from", completion_copy_from, METH_O, "Take over the struct ffv_wc in a buffer." },
	{ "_memory", completion_memory, METH_NOARGS, "Return the struct ffv_wc as bytes." },
	{ NULL, NULL, 0, NULL },
};

static PyMemberDef completion_members[] = {
	{ "__weaklistoffset__", T_PYSSIZET, offsetof(struct completion, weak_references), READONLY, NULL },
	{ NULL, 0, 0, 0, NULL },
};

static void completion_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	if (((struct completion *)self)->weak_references)
		PyObject_ClearWeakRefs(self);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

static PyType_Spec completion_spec = {
	.name = "ffverbs._calls.Completion",
	.basicsize = sizeof(struct completion),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = (PyType_Slot[]){
		{ Py_tp_doc, "The fields of a work completion." },
		{ Py_tp_dealloc, completion_dealloc },
		{ Py_tp_getset, completion_fields },
		{ Py_tp_methods, completion_methods },
		{ Py_tp_members, completion_members },
		{ 0, NULL },
	},
};

/* (count, [completion, ...]) */
static PyObject *polled(const struct ffv_wc *wcs, int count)
{
	PyObject *list = PyList_New(count), *number = PyLong_FromLong(count), *result = PyTuple_New(2);

	for (int i = 0; list && i < count; i++) {
		PyObject *wc = new_wc((PyTypeObject *)wc_class, 0);

		if (!wc) {
			Py_CLEAR(list);
			break;
		}
		((struct completion *)wc)->wc = wcs[i];
		PyList_SetItem(list, i, wc);
	}
	if (!list || !number || !result) {
		Py_XDECREF(list);
		Py_XDECREF(number);
		Py_XDECREF(result);
		return NULL;
	}
	PyTuple_SetItem(result, 0, number);
	PyTuple_SetItem(result, 1, list);
	return result;
}

static PyObject *poll(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
	struct ffv_wc few[FEW], *wcs = few;
	PyObject *result = NULL;
	struct ffv_cq *cq;
	long entries;
	int count;

	(void)module;
	if (!has_args(given, 2) || !(cq = pointer(args[0], cq_type)))
		return NULL;
	entries = PyLong_AsLong(args[1]);
	if (entries == -1 && PyErr_Occurred())
		return NULL;
	if (entries < INT_MIN || entries > INT_MAX) {
		PyErr_SetString(PyExc_OverflowError, "num_entries does not fit an int");
		return NULL;
	}
	if (entries > MANY)
		entries = Py_MIN(entries, Py_MAX(ffv_cq_cqe(cq), MANY));
	if (entries > FEW && !(wcs = PyMem_Malloc((size_t)entries * sizeof *wcs)))
		return PyErr_NoMemory();
	Py_BEGIN_ALLOW_THREADS
	count = ffv_poll_cq(cq, (int)entries, wcs);
	Py_END_ALLOW_THREADS
	if (count >= 0)
		result = polled(wcs, count);
	else
		Py_XDECREF(PyObject_CallFunction(raise_errno, "is", -count, "Failed to poll CQ"));
	if (wcs != few)
		PyMem_Free(wcs);
	return result;
}

/* ---- work requests -------------------------------------------------------------------------------------------- */

/* The arguments of a post: queue, chain of requests, and None or a cell for the first one that is refused. */
static int post_args(PyObject *const *args, Py_ssize_t given, PyObject *const types[3], void *pointers[3])
{
	if (!has_args(given, 3) || !(pointers[0] = pointer(args[0], types[0])) ||
	    !(pointers[1] = pointer(args[1], types[1])))
		return 0;
	pointers[2] = NULL;
	return args[2] == Py_None || (pointers[2] = pointer(args[2], types[2])) != NULL;
}

static PyObject *post_send(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
	void *p[3];
	int rc;

	(void)module;
	if (!post_args(args, given, (PyObject *[]){ qp_type, send_wr_type, send_cell_type }, p))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	rc = ffv_post_send(p[0], p[1], p[2]);
	Py_END_ALLOW_THREADS
	return PyLong_FromLong(rc);
}

static PyObject *post_recv(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
	void *p[3];
	int rc;

	(void)module;
	if (!post_args(args, given, (PyObject *[]){ qp_type, recv_wr_type, recv_cell_type }, p))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	rc = ffv_post_recv(p[0], p[1], p[2]);
	Py_END_ALLOW_THREADS
	return PyLong_FromLong(rc);
}

static PyObject *post_srq_recv(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
	void *p[3];
	int rc;

	(void)module;
	if (!post_args(args, given, (PyObject *[]){ srq_type, recv_wr_type, recv_cell_type }, p))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	rc = ffv_post_srq_recv(p[0], p[1], p[2]);
	Py_END_ALLOW_THREADS
	return PyLong_FromLong(rc);
}

/* ---- the module ----------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	PyObject **at;
} settings[] = {
	{ "qp_type", &qp_type }, { "srq_type", &srq_type }, { "cq_type", &cq_type },
	{ "send_wr_type", &send_wr_type }, { "send_cell_type", &send_cell_type },
	{ "recv_wr_type", &recv_wr_type }, { "recv_cell_type", &recv_cell_type },
	{ "check_u8", &check_u8 }, { "check_u16", &check_u16 }, { "check_u32", &check_u32 }, { "check_u64", &check_u64 },
	{ "statuses", &statuses }, { "opcodes", &opcodes }, { "wc_class", &wc_class }, { "raise_errno", &raise_errno },
};

static PyObject *configure(PyObject *module, PyObject *args, PyObject *given)
{
	(void)module;
	if (PyTuple_Size(args) || !given) {
		PyErr_SetString(PyExc_TypeError, "settings are given by name");
		return NULL;
	}
	for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
		PyObject *value = PyDict_GetItemString(given, settings[i].name), *old = *settings[i].at;

		if (!value)
			continue;
		*settings[i].at = Py_NewRef(value);
		Py_XDECREF(old);
	}
	if (wc_class)
		new_wc = (allocfunc)PyType_GetSlot((PyTypeObject *)wc_class, Py_tp_alloc);
	Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
	{ "configure", (PyCFunction)(void (*)(void))configure, METH_VARARGS | METH_KEYWORDS, "Take over the settings given." },
	{ "poll", (PyCFunction)(void (*)(void))poll, METH_FASTCALL, "ffv_poll_cq: (queue, entries) -> (count, completions)." },
	{ "post_send", (PyCFunction)(void (*)(void))post_send, METH_FASTCALL, "ffv_post_send: (queue, chain, cell) -> result." },
	{ "post_recv", (PyCFunction)(void (*)(void))post_recv, METH_FASTCALL, "ffv_post_recv: (queue, chain, cell) -> result." },
	{ "post_srq_recv", (PyCFunction)(void (*)(void))post_srq_recv, METH_FASTCALL,
	  "ffv_post_srq_recv: (queue, chain, cell) -> result." },
	{ NULL, NULL, 0, NULL },
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "ffverbs._calls",
	.m_doc = "The data path's calls.",
	.m_size = -1,
	.m_methods = methods,
};

PyMODINIT_FUNC PyInit__calls(void)
{
	PyObject *module = PyModule_Create(&definition), *completion;

	if (!module)
		return NULL;
	completion = PyType_FromSpec(&completion_spec);
	if (!completion || PyModule_AddObjectRef(module, "Completion", completion) < 0)
		Py_CLEAR(module);
	Py_XDECREF(completion);
	return module;
}

/* Goes into the source that cffi generates, behind cffi's own definitions: what python_calls.c needs of them. */
#include "ffi/python_calls.h"

void *ffv_python_pointer(PyObject *cdata, PyObject *c_type)
{
	return _cffi_to_c_pointer(cdata, (struct _cffi_ctypedescr *)c_type);
}

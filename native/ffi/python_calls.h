/* What python_calls.c and the module that cffi generates have in common. Python's headers come before this one. */
#ifndef FFV_FFI_PYTHON_CALLS_H
#define FFV_FFI_PYTHON_CALLS_H

/* The address in a pointer of cffi. NULL with TypeError set unless it is of that type of cffi's. The GIL is held. */
void *ffv_python_pointer(PyObject *cdata, PyObject *c_type);

/* Makes the module; called by the import machinery. */
PyMODINIT_FUNC PyInit__calls(void);

#endif

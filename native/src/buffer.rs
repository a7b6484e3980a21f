//! A vector lent to Python without a copy. The only unsafe code of the crate, by the buffer protocol.

use std::ffi::{c_int, c_void};

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

/// A vector of plain numbers, as it was built.
pub enum Data {
    U8(Vec<u8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// Bytes that never change and live as long as somebody looks at them.
#[pyclass(frozen)]
pub struct Buffer {
    data: Data,
}

impl Buffer {
    pub fn new(data: Data) -> Self {
        Buffer { data }
    }

    /// First byte and number of bytes, in this machine's byte order.
    fn span(&self) -> (*const u8, usize) {
        match &self.data {
            Data::U8(values) => (values.as_ptr(), values.len()),
            Data::I16(values) => (values.as_ptr().cast(), size_of_val(&values[..])),
            Data::I32(values) => (values.as_ptr().cast(), size_of_val(&values[..])),
            Data::I64(values) => (values.as_ptr().cast(), size_of_val(&values[..])),
            Data::F64(values) => (values.as_ptr().cast(), size_of_val(&values[..])),
        }
    }
}

#[pymethods]
impl Buffer {
    /// # Safety
    /// Called by the interpreter alone, with a `view` that it owns (PEP 3118).
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view"));
        }
        let (data, size) = slf.get().span();
        let (data, size) = (data as *mut c_void, size as ffi::Py_ssize_t);
        // SAFETY: the class is frozen, so the vector neither moves nor changes while the view's reference
        // to the object (taken here) keeps it alive; `span` gives its own bytes, all of them initialised;
        // PyBuffer_FillInfo refuses a writable view (readonly 1).
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), data, size, 1, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

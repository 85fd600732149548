//! A second copy of the library, for a process that has one already: what `tests/two_copies.rs` loads.
//!
//! All calls are from one thread at a time, but for `second_step`.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{
    ffi::{CStr, c_char},
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use segvm::{Segment, Session, SessionOptions};

#[derive(Debug)]
pub struct Second {
    session: Session,
    segment: Segment,
}

/// Opens an image by an engine.
///
/// # Safety
/// Strings that end with a zero, store, image and engine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn second_open(
    store: *const c_char,
    image: *const c_char,
    engine: *const c_char,
) -> *mut Second {
    let [store, image, engine] = [store, image, engine].map(|text| {
        // SAFETY: the caller's promise.
        let text = unsafe { CStr::from_ptr(text) };
        text.to_str().unwrap()
    });
    let options = SessionOptions::new()
        .store(store)
        .engine(engine.parse().unwrap());
    let session = options.open(image).unwrap();
    let segment = session
        .segment("memory", segvm_e2e::PAGES * segvm_e2e::PAGE)
        .unwrap();
    Box::into_raw(Box::new(Second { session, segment }))
}

/// Where its memory begins.
///
/// # Safety
/// What `second_open` gave.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn second_base(second: *const Second) -> usize {
    // SAFETY: the caller's promise.
    let second = unsafe { &*second };
    second.segment.as_ptr() as usize
}

/// Step `n`: one word of the step's page, and the count in the first word of memory.
///
/// # Safety
/// What `second_open` gave.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn second_step(second: *const Second, n: u64) {
    // SAFETY: the caller's promise.
    let second = unsafe { &*second };
    let pass = second.session.enter().unwrap();
    for at in [segvm_e2e::page_of(n) * segvm_e2e::PAGE + 8, 0] {
        let at = ptr::with_exposed_provenance::<AtomicU64>(second.segment.as_ptr() as usize + at);
        // SAFETY: committed memory, aligned, and written by atomics only.
        unsafe { &*at }.store(n, Ordering::Relaxed);
    }
    drop(pass);
}

/// # Safety
/// What `second_open` gave.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn second_checkpoint(second: *const Second) {
    // SAFETY: the caller's promise.
    let second = unsafe { &*second };
    second.session.checkpoint().unwrap();
}

/// Ends the session without saving.
///
/// # Safety
/// What `second_open` gave, for the last time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn second_close(second: *mut Second) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(second) });
}

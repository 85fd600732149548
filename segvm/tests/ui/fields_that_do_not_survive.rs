use std::{fs::File, rc::Rc, sync::Mutex};

use segvm::persist::Persist;

#[derive(Persist)]
#[repr(C)]
struct Reference {
    name: &'static str,
}

#[derive(Persist)]
#[repr(C)]
struct Function {
    call: fn(),
}

#[derive(Persist)]
#[repr(C)]
struct Counted {
    shared: Rc<u64>,
}

#[derive(Persist)]
#[repr(C)]
struct StdString {
    name: String,
}

#[derive(Persist)]
#[repr(C)]
struct Locked {
    lock: Mutex<u64>,
}

#[derive(Persist)]
#[repr(C)]
struct Descriptor {
    file: File,
}

#[derive(Persist)]
#[repr(C)]
struct Pointer {
    raw: *const u8,
}

fn main() {}

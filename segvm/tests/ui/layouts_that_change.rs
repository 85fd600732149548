use segvm::persist::Persist;

#[derive(Persist)]
struct NoRepr {
    a: u64,
}

#[derive(Persist, Clone, Copy)]
enum NoNumbers {
    A,
    B,
}

#[derive(Persist)]
#[repr(C)]
enum WithFields {
    A(u64),
}

#[derive(Persist)]
#[repr(u8)]
enum Fields {
    A(u64),
}

#[derive(Persist)]
#[repr(C)]
struct Generic<T> {
    a: T,
}

#[derive(Persist, Clone, Copy)]
#[repr(C)]
#[persist(plain)]
struct NotPlain {
    text: segvm::collections::Text,
}

fn main() {}

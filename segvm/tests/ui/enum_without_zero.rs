use segvm::persist::Persist;

#[derive(Persist, Clone, Copy)]
#[repr(u8)]
enum NoZero {
    A = 1,
}

fn main() {}

use segvm::{
    collections::HashMap,
    persist::Persist,
};

#[derive(Persist, Debug)]
#[repr(C)]
#[persist(key)]
struct NotPlain {
    part: u32,
}

#[derive(Persist, Debug, Clone, Copy)]
#[repr(C)]
#[persist(plain, key)]
struct NoOrder {
    weight: f64,
}

#[derive(Persist, Debug, Clone, Copy)]
#[repr(C)]
#[persist(plain)]
struct NotAsked {
    part: u32,
}

#[derive(Persist)]
#[repr(C)]
struct Notes {
    by_part: HashMap<NotAsked, u64>,
}

fn main() {}

use segvm::{
    collections::{Text, Vec},
    root::Root,
};

fn swapped(root: &Root<Text>, other: &Root<Text>) {
    std::mem::swap(&mut *root.write(), &mut *other.write());
}

fn moved_out(root: &Root<Vec<Text>>) -> Text {
    root.read()[0]
}

fn main() {}

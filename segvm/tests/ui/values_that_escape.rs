use segvm::{
    collections::{Text, Vec},
    root::Root,
};

fn taken(root: &Root<Text>) -> Text {
    let mut guard = root.write();
    std::mem::take(&mut *guard)
}

fn made_outside() -> Text {
    Text::default()
}

fn stored_in_another_image(here: &Root<Vec<Text>>, there: &Root<Text>) {
    here.write().as_mut().push(*there.read());
}

fn main() {}

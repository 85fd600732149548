use segvm::{collections::Text, root::Root};

fn read_after_suspend(root: &Root<Text>, suspend: impl FnOnce()) {
    let guard = root.read();
    let text: &str = guard.as_str();
    drop(guard);
    suspend();
    println!("{text}");
}

fn written_after_suspend(root: &Root<Text>, suspend: impl FnOnce()) {
    let mut guard = root.write();
    let mut text = guard.as_mut();
    drop(guard);
    suspend();
    text.push_str("late");
}

fn two_handles_at_once(root: &Root<Text>) {
    let mut guard = root.write();
    let mut one = guard.as_mut();
    let two = guard.as_mut();
    one.push_str(&two);
}

fn main() {}

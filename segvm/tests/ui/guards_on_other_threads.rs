use segvm::root::Root;

fn sent(root: &'static Root<u64>) {
    let guard = root.write();
    std::thread::spawn(move || drop(guard));
}

fn read_there(root: &'static Root<u64>) {
    let guard = root.read();
    std::thread::spawn(move || drop(guard));
}

fn main() {}

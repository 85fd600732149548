//! Kill it (`kill -9`), run it again: it counts on.

use std::{thread::sleep, time::Duration};

use segvm::Session;

fn main() -> Result<(), segvm::Error> {
    let session = Session::open("immortal")?;
    let count = session.root::<u64>("count")?;
    session.checkpoint_every(Duration::from_millis(100))?;
    loop {
        *count.write() += 1;
        println!("{}", count.read());
        sleep(Duration::from_millis(20));
    }
}

//! A program that is killed: `victim run` steps for ever and says what is durable; `victim check` says what it found.

use std::{io::Write, process::ExitCode, time::Duration};

use segvm::{Attribute, OpenError, Session};
use segvm_e2e::{PAGE, PAGES, content_of, last_writer, mark, mark_at, page_of};

fn main() -> ExitCode {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let result = match mode.as_str() {
        "run" => run(false),
        "automatic" => run(true),
        "check" => check(),
        "suspend" => suspend(),
        "dump" => dump(),
        _ => {
            eprintln!("victim run|automatic|check|suspend|dump");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("victim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(automatic: bool) -> Result<(), segvm::Error> {
    let session = Session::open("victim")?;
    let memory = session.segment("memory", PAGES * PAGE)?;
    let count = session.root::<u64>("count")?;
    if automatic {
        session.checkpoint_every(Duration::from_millis(3))?;
    }
    println!("begun {}", *count.read());
    loop {
        let n = *count.read() + 1;
        {
            // The page and the count are one change: a checkpoint has both or neither.
            let _pass = session
                .enter()
                .map_err(|error| segvm::Error::Checkpoint(error.into()))?;
            let write = memory.write(page_of(n) * PAGE, &content_of(n));
            write.map_err(|error| segvm::Error::Checkpoint(error.into()))?;
            *count.write() = n;
        }
        if !automatic && n % 7 == 0 {
            session.checkpoint()?;
            println!("durable {n}");
            std::io::stdout().flush()?;
        }
    }
}

fn check() -> Result<(), segvm::Error> {
    let session = Session::open("victim")?;
    let memory = session.segment("memory", PAGES * PAGE)?;
    let count = *session.root::<u64>("count")?.read();
    let mut page = vec![0; PAGE];
    for at in 0..PAGES {
        let read = memory.read(at * PAGE, &mut page);
        read.map_err(|error| segvm::Error::Checkpoint(error.into()))?;
        let wanted = last_writer(at, count).map_or_else(|| vec![0; PAGE], content_of);
        if page != wanted {
            return Err(segvm::Error::Io(std::io::Error::other(format!(
                "page {at} is not what {count} steps leave"
            ))));
        }
    }
    println!("count {count}");
    Ok(())
}

fn suspend() -> Result<(), segvm::Error> {
    let session = Session::open("victim")?;
    session.suspend()?;
    Ok(())
}

/// The first time saves two segments; the second time touches one of them, has a cache and a secret, and dies of a signal that
/// leaves a core file.
fn dump() -> Result<(), segvm::Error> {
    let session = Session::open("victim")?;
    let first = session.is_new();
    let (touched, mapped) = (
        session.segment("touched", 1 << 20)?,
        session.segment("mapped", 1 << 20)?,
    );
    if first {
        touched.write(0, &mark(1)).map_err(OpenError::from)?;
        mapped.write(0, &mark(2)).map_err(OpenError::from)?;
        session.suspend()?;
        return Ok(());
    }
    touched.write(PAGE * 2, &mark(3)).map_err(OpenError::from)?;
    let keep = |region: &segvm::Region, n| -> Result<(), segvm::Error> {
        let mut guard = region.write()?;
        let marked = mark(n);
        for (place, byte) in guard.bytes_mut().iter_mut().zip(&marked) {
            *place = *byte;
        }
        // The copy outside would be found instead.
        std::hint::black_box(marked).fill(0);
        Ok(())
    };
    keep(&session.region("cache", PAGE, Attribute::Drop)?, 4)?;
    keep(&session.region("keys", PAGE, Attribute::Wipe)?, 5)?;
    let secret = session.secret(|key: &mut [u8; 48]| {
        for (at, place) in (0_u64..).zip(key.iter_mut()) {
            *place = mark_at(6, at);
        }
    })?;
    let _used = secret.read(|key| std::hint::black_box(key[0]))?;
    std::process::abort();
}

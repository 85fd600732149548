//! `cargo xtask bench`: runs rows, prints them, and keeps docs/measurements.md.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use segvm_benches::{
    error::BenchError,
    machine::Machine,
    measure::{Ctx, Measured},
    report::{self, RowResult},
    rows,
    spec::{self, ENGINES, Spec},
};

/// What the command line asks for.
#[derive(Debug)]
struct Asked {
    suite: String,
    /// The engine that is forced, if one is; it is part of the suite's name already.
    engine: Option<&'static str>,
    json: bool,
    list: bool,
    /// Parts of names; empty means every row.
    patterns: Vec<String>,
    /// Divides sizes.
    scale: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("peer", [name, rest @ ..])) = arguments
        .split_first()
        .map(|(first, rest)| (first.as_str(), rest))
    {
        return ended(rows::serve(name, rest));
    }
    match asked(&arguments) {
        Ok(asked) => match forced(asked.engine) {
            Ok(Some(code)) => code,
            Ok(None) => ended(bench(&asked)),
            Err(error) => ended(Err(error)),
        },
        Err(text) => {
            eprintln!("bench: {text}; `cargo xtask help` lists the options");
            ExitCode::from(2)
        }
    }
}

fn ended(result: Result<(), BenchError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn asked(arguments: &[String]) -> Result<Asked, String> {
    let mut asked = Asked {
        suite: "core".to_owned(),
        engine: None,
        json: false,
        list: false,
        patterns: Vec::new(),
        scale: 1,
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => asked.json = true,
            "--list" => asked.list = true,
            "--rows" => {
                let patterns = arguments.next().ok_or("--rows needs a pattern")?;
                asked.patterns = patterns.split(',').map(str::to_owned).collect();
            }
            "--engine" => {
                let name = arguments.next().ok_or("--engine needs a name")?;
                let known = ENGINES.iter().find(|engine| *engine == name);
                asked.engine = Some(known.ok_or(format!("no engine {name:?} can be forced"))?);
            }
            "--scale" => {
                let scale = arguments.next().and_then(|text| text.strip_prefix("1/"));
                asked.scale = scale
                    .and_then(|text| text.parse().ok())
                    .filter(|divisor| (1..=1024).contains(divisor))
                    .ok_or("--scale needs a fraction such as 1/8, at least 1/1024")?;
            }
            flag if flag.starts_with('-') => return Err(format!("no option {flag}")),
            suite => suite.clone_into(&mut asked.suite),
        }
    }
    match asked.engine {
        Some(engine) => asked.suite = spec::by(&asked.suite, engine),
        None => asked.engine = spec::engine_of(&asked.suite),
    }
    Ok(asked)
}

/// Runs this program once more with the engine forced, for itself and for all its helpers; `None` where it is.
fn forced(engine: Option<&str>) -> Result<Option<ExitCode>, BenchError> {
    const ENGINE: &str = "SEGVM_ENGINE";
    let Some(engine) = engine.filter(|engine| std::env::var(ENGINE).as_deref() != Ok(engine))
    else {
        return Ok(None);
    };
    let program = std::env::current_exe().map_err(BenchError::kernel("current_exe"))?;
    let status = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(ENGINE, engine)
        .status()
        .map_err(BenchError::kernel("spawn"))?;
    Ok(Some(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }))
}

fn bench(asked: &Asked) -> Result<(), BenchError> {
    let specs = spec::rows()?;
    let wanted = |spec: &&Spec| {
        let named = |pattern: &String| spec.name.contains(pattern.as_str());
        spec.suite == asked.suite && (asked.patterns.is_empty() || asked.patterns.iter().any(named))
    };
    let wanted: Vec<&Spec> = specs.iter().filter(wanted).collect();
    if wanted.is_empty() {
        let suites: std::collections::BTreeSet<&str> =
            specs.iter().map(|spec| spec.suite.as_str()).collect();
        return Err(BenchError::Rows(format!(
            "no row of suite {:?} has that name (suites: {suites:?})",
            asked.suite
        )));
    }
    if asked.list {
        for spec in wanted {
            let target = spec.figures.first().map(|figure| figure.target);
            let target = target.map_or_else(String::new, |target| target.to_string());
            println!("{:<32} {target:<36} {}", spec.name, spec.description);
        }
        return Ok(());
    }
    let ctx = Ctx::new(&data_dir(), asked.scale)?;
    let mut results = Vec::new();
    for spec in wanted {
        eprintln!("measuring {} ...", spec.name);
        let measured = match rows::ALL.iter().find(|row| row.name == spec.code) {
            None => Measured::failed("no code for it".to_owned()),
            Some(row) => {
                (row.run)(&ctx).unwrap_or_else(|error| Measured::failed(error.to_string()))
            }
        };
        results.push(RowResult::new(spec.clone(), &measured, asked.scale > 1));
    }
    if asked.json {
        print!("{}", report::json(&results));
    } else {
        print!("{}", report::table(&results));
    }
    if asked.scale == 1 {
        let machine = Machine::here(ctx.dir());
        let path = root().join("docs/measurements.md");
        report::update(&path, &asked.suite, &specs, &results, &machine)?;
    }
    Ok(())
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Beside the build, because that is on a disk: the temporary directory may be memory.
fn data_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), PathBuf::from)
        .join("bench-data")
}

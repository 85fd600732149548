//! Measures what a tree costs at each fan-out: the table in docs/design/fanout.md.
//!
//! `cargo run --release -p segvm-blockcache --example fanout`

use std::{
    cell::Cell,
    collections::HashMap,
    error::Error,
    time::{Duration, Instant},
};

use segvm_blockcache::{
    BlockId, BlockIndex, BlockSize, NodeId, NodeReadError, NodeSink, NodeSource, NodeWriteError,
    TreeOf,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const GIB: u64 = 1 << 30;

/// Keeps what the first seal puts, then only counts: storing is not what is measured here.
#[derive(Default)]
struct Nodes {
    by_id: HashMap<NodeId, Vec<u8>>,
    counting: bool,
    put: u64,
    put_bytes: u64,
    read_bytes: Cell<u64>,
}

impl NodeSource for Nodes {
    fn node(&self, id: NodeId) -> std::result::Result<Vec<u8>, NodeReadError> {
        let bytes = self.by_id.get(&id).ok_or(NodeReadError::Absent { id })?;
        self.read_bytes
            .set(self.read_bytes.get() + bytes.len() as u64);
        Ok(bytes.clone())
    }
}

impl NodeSink for Nodes {
    fn put_node(&mut self, id: NodeId, bytes: &[u8]) -> std::result::Result<(), NodeWriteError> {
        self.put += 1;
        self.put_bytes += bytes.len() as u64;
        if !self.counting {
            self.by_id.insert(id, bytes.to_vec());
        }
        Ok(())
    }
}

/// xorshift64*: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn id(&mut self) -> BlockId {
        let mut bytes = [0; 32];
        for part in bytes.as_chunks_mut::<8>().0 {
            *part = self.next().to_le_bytes();
        }
        BlockId::from_bytes(bytes)
    }
}

struct Segment {
    name: &'static str,
    len: u64,
    /// The blocks that are no holes.
    places: Vec<BlockIndex>,
}

fn dense(name: &'static str, len: u64) -> Segment {
    let places = (0..BlockSize::DEFAULT.count(len)).map(BlockIndex).collect();
    Segment { name, len, places }
}

/// 1,024 runs of 1 MiB at random places.
fn sparse(name: &'static str, len: u64) -> Segment {
    let mut random = Random(7);
    let run = BlockSize::DEFAULT.count(1 << 20);
    let mut starts: Vec<u64> = (0..1024)
        .map(|_| random.next() % (len >> 20) * run)
        .collect();
    starts.sort_unstable();
    starts.dedup();
    let places = starts
        .iter()
        .flat_map(|&start| (start..start + run).map(BlockIndex))
        .collect();
    Segment { name, len, places }
}

/// What changing some blocks and sealing cost: the median round by time.
struct Cost {
    bytes: u64,
    nodes: u64,
    time: Duration,
}

fn reseal<const F: usize>(
    tree: &mut TreeOf<F>,
    nodes: &mut Nodes,
    places: &[BlockIndex],
    dirty: usize,
    rounds: usize,
) -> Result<Cost> {
    let mut random = Random(99);
    let mut costs = Vec::new();
    for _ in 0..rounds {
        let changes: Vec<_> = (0..dirty)
            .map(|_| {
                let at = usize::try_from(random.next() % places.len() as u64)?;
                Ok((*places.get(at).ok_or("no such place")?, random.id()))
            })
            .collect::<Result<_>>()?;
        (nodes.put, nodes.put_bytes) = (0, 0);
        let start = Instant::now();
        for (at, id) in changes {
            tree.set(nodes, at, Some(id))?;
        }
        tree.seal(nodes)?;
        costs.push((start.elapsed(), nodes.put_bytes, nodes.put));
    }
    costs.sort_unstable();
    let &(time, bytes, nodes) = costs.get(rounds / 2).ok_or("no rounds")?;
    Ok(Cost { bytes, nodes, time })
}

fn measure<const F: usize>(segment: &Segment) -> Result<()> {
    let mut nodes = Nodes::default();
    let mut random = Random(1);
    let mut tree = TreeOf::<F>::new(BlockSize::DEFAULT, segment.len)?;
    for &at in &segment.places {
        tree.set(&nodes, at, Some(random.id()))?;
    }
    let start = Instant::now();
    let id = tree.seal(&mut nodes)?;
    let first_seal = start.elapsed();
    let all_bytes = nodes.put_bytes;
    let memory = tree.loaded_bytes();

    // What a demand fault of a cold tree has to fetch beside the block.
    let faults = 200;
    for _ in 0..faults {
        let at = usize::try_from(random.next() % segment.places.len() as u64)?;
        let mut cold = TreeOf::<F>::open(&nodes, id)?;
        cold.get(&nodes, *segment.places.get(at).ok_or("no such place")?)?;
    }
    let path_bytes = nodes.read_bytes.get() / faults;

    nodes.counting = true;
    let count = segment.places.len();
    let mut row = format!(
        "| {} | {F} | {} | {} | {} | {} | {:.1} |",
        segment.name,
        tree.height(),
        kib(all_bytes),
        kib(memory as u64),
        kib(path_bytes),
        first_seal.as_secs_f64() * 1e3,
    );
    for (dirty, rounds) in [(1, 301), (count / 1000, 51), (count / 100, 21)] {
        let cost = reseal(&mut tree, &mut nodes, &segment.places, dirty, rounds)?;
        row += &format!(
            " {} / {} / {:.0} us |",
            kib(cost.bytes),
            cost.nodes,
            cost.time.as_secs_f64() * 1e6,
        );
    }
    println!("{row}");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn kib(bytes: u64) -> String {
    let kib = bytes as f64 / 1024.0;
    if kib < 100.0 {
        format!("{kib:.1} KiB")
    } else {
        format!("{kib:.0} KiB")
    }
}

fn main() -> Result<()> {
    println!(
        "| segment | fan-out | height | all nodes | loaded | path of a cold fault | seal all, ms | 1 dirty | 0.1 % dirty | 1 % dirty |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for segment in [
        dense("1 GiB", GIB),
        dense("4 GiB", 4 * GIB),
        sparse("1 TiB sparse", 1024 * GIB),
    ] {
        measure::<16>(&segment)?;
        measure::<32>(&segment)?;
        measure::<64>(&segment)?;
        measure::<128>(&segment)?;
        measure::<256>(&segment)?;
        measure::<512>(&segment)?;
    }
    Ok(())
}

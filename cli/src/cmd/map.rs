//! A segment as a strip of blocks: holes, what is stored, and what the commit changed.
//!
//! A strip has at most [`CELLS`] cells, each for the same number of blocks, so that a segment of any length fits on a
//! screen and into a drawing.

use serde_json::{Value, json};

use segvm_blockcache::{BlockIndex, Store, diff};
use segvm_home::SegmentRecord;

use super::{blocks, diff::failed};
use crate::{
    failure::Failure,
    output::{Output, Paint, bytes, count, counted, printable},
};

/// The most cells of a strip: 16 lines of 64.
const CELLS: u64 = 1024;
/// Cells a line.
const WIDTH: usize = 64;

/// Some blocks that lie one behind the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    /// No holes.
    pub(super) stored: u64,
    /// Stored or hole, and something else in the commit before.
    pub(super) changed: u64,
}

/// The cells of a segment.
#[derive(Debug)]
pub(super) struct Strip {
    /// How many blocks a cell stands for; the last may have fewer.
    pub(super) per_cell: u64,
    pub(super) blocks: u64,
    pub(super) block_size: u64,
    pub(super) cells: Vec<Cell>,
}

impl Strip {
    /// Looks at every block, and at what differs from `before`: all, where there is none.
    pub(super) fn of(
        view: &Store,
        record: &SegmentRecord,
        before: Option<&SegmentRecord>,
    ) -> Result<Self, Failure> {
        let mut strip = Self::empty(record.block_size.count(record.len), blocks::size(record));
        blocks::each(view, record, |index, _| strip.cell(index).stored += 1)?;
        match before.filter(|before| before.block_size == record.block_size) {
            Some(before) => {
                let end = strip.blocks;
                diff(view, before.tree, record.tree, |index, _, _| {
                    if index.0 < end {
                        strip.cell(index).changed += 1;
                    }
                })
                .map_err(|source| failed(&record.name, source))?;
            }
            None => {
                for cell in &mut strip.cells {
                    cell.changed = cell.stored;
                }
            }
        }
        Ok(strip)
    }

    fn empty(blocks: u64, block_size: u64) -> Self {
        let per_cell = blocks.div_ceil(CELLS).max(1);
        let cells = usize::try_from(blocks.div_ceil(per_cell)).unwrap_or(0);
        Self {
            per_cell,
            blocks,
            block_size,
            cells: vec![Cell::default(); cells],
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a block before the end is in a cell; one behind it would be a damaged tree, and trees are checked"
    )]
    fn cell(&mut self, index: BlockIndex) -> &mut Cell {
        let last = self.cells.len().saturating_sub(1);
        let at = usize::try_from(index.0 / self.per_cell).unwrap_or(last);
        &mut self.cells[at.min(last)]
    }

    pub(super) fn stored(&self) -> u64 {
        self.cells.iter().map(|cell| cell.stored).sum()
    }

    pub(super) fn to_json(&self) -> Value {
        let cells = self.cells.iter();
        json!({
            "blocks_per_cell": self.per_cell,
            "stored": cells.clone().map(|cell| cell.stored).collect::<Vec<_>>(),
            "changed": cells.map(|cell| cell.changed).collect::<Vec<_>>(),
        })
    }

    /// How many blocks the cell at a place stands for.
    pub(super) fn room(&self, at: usize) -> u64 {
        let first = u64::try_from(at)
            .unwrap_or(u64::MAX)
            .saturating_mul(self.per_cell);
        self.per_cell.min(self.blocks.saturating_sub(first))
    }

    fn glyph(&self, at: usize, cell: Cell) -> char {
        match cell {
            Cell { changed: 1.., .. } => '█',
            Cell { stored: 0, .. } => '·',
            Cell { stored, .. } if stored < self.room(at) => '░',
            Cell { .. } => '▒',
        }
    }
}

/// Draws a strip in lines that say where they begin.
pub(super) fn show(name: &str, strip: &Strip, out: &mut Output) -> Result<(), Failure> {
    out.line("")?;
    let cell = bytes(strip.per_cell * strip.block_size);
    let changed: u64 = strip.cells.iter().map(|cell| cell.changed).sum();
    let head = format!(
        "{}  a cell is {cell}; {} of {} changed",
        printable(name),
        count(changed),
        counted(strip.blocks, "block")
    );
    out.line(out.paint(Paint::Bold, &head))?;
    let rows: Vec<&[Cell]> = strip.cells.chunks(WIDTH).collect();
    let empty = |row: usize| {
        let cells = rows.get(row).into_iter().flat_map(|cells| cells.iter());
        cells.clone().count() > 0 && cells.into_iter().all(|cell| *cell == Cell::default())
    };
    for (row, cells) in rows.iter().enumerate() {
        // Between two lines of holes there are more of them: one word for all.
        if row > 0 && empty(row - 1) && empty(row) && empty(row + 1) {
            if row == 1 || !empty(row - 2) {
                out.line(out.paint(Paint::Dim, "      ..."))?;
            }
            continue;
        }
        let at = |column: usize| row * WIDTH + column;
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let glyph = strip.glyph(at(column), *cell).to_string();
            line.push_str(&match cell {
                Cell { changed: 1.., .. } => out.paint(Paint::Warn, &glyph),
                Cell { stored: 0, .. } => out.paint(Paint::Dim, &glyph),
                Cell { .. } => glyph,
            });
        }
        let first = u64::try_from(at(0)).unwrap_or(u64::MAX);
        let from = bytes(first * strip.per_cell * strip.block_size);
        out.line(format!("{from:>8}  {line}"))?;
    }
    Ok(())
}

pub(super) fn legend(out: &mut Output) -> Result<(), Failure> {
    out.line("")?;
    out.line("█ changed by this commit   ▒ stored   ░ stored in part   · hole")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strip_has_at_most_so_many_cells_and_all_blocks() {
        for blocks in [0, 1, 7, 1023, 1024, 1025, 1_000_003] {
            let strip = Strip::empty(blocks, 4096);
            assert!(strip.cells.len() <= 1024);
            let rooms = (0..strip.cells.len()).map(|at| strip.room(at));
            assert_eq!(rooms.clone().sum::<u64>(), blocks);
            assert!(rooms.into_iter().all(|room| room > 0));
        }
    }

    #[test]
    fn what_changed_outshines_what_is_stored() {
        let strip = Strip::empty(2048, 4096);
        let glyph = |stored, changed| strip.glyph(0, Cell { stored, changed });
        assert_eq!(
            [
                glyph(0, 0),
                glyph(1, 0),
                glyph(2, 0),
                glyph(2, 1),
                glyph(0, 1)
            ],
            ['·', '░', '▒', '█', '█']
        );
    }
}

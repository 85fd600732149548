//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use segvm_home::{ImageName, ImageRef};

use crate::exit;

/// Looks into a store of images, and looks after it.
///
/// IMAGE is a name. IMAGE[@REF] is a commit of it: @-1 is the one before the newest, @4f0c2a9 the one whose id begins
/// so, @2h or @yesterday or @2026-11-25T12:30:00Z the newest at that time, @NAME a tag.
#[derive(Debug, Parser)]
#[command(name = "segvm", version, after_help = exit::TABLE, max_term_width = 110)]
pub(crate) struct Args {
    /// The store [default: $SEGVM_HOME, else $XDG_DATA_HOME/segvm, else ~/.local/share/segvm]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Writes JSON: results to stdout, a failure to stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Whether to use colours
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) color: ColorWhen,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Whether to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists the images: how large, how much is stored, how many commits, who has them open
    #[command(
        after_help = "Examples:\n  segvm images\n  segvm images --json | jq -r '.[] | select(.lease) | .image'"
    )]
    Images(Images),
    /// Lists the commits of an image, newest first, beyond the point where it was branched off
    #[command(after_help = "Examples:\n  segvm log notes\n  segvm log notes --limit 5 --json")]
    Log(Log),
    /// Says who has an image open for writing
    #[command(after_help = "Examples:\n  segvm lease notes")]
    Lease {
        /// The image
        image: ImageName,
    },
    /// Shows a commit: its segments, and who made it
    #[command(
        after_help = "Examples:\n  segvm show notes\n  segvm show notes@-1 --map\n  segvm show notes@v1 --map --svg map.svg\n  segvm show notes --root notes"
    )]
    Show(Show),
    /// Says which blocks of which segments two commits do not have in common
    #[command(
        after_help = "Examples:\n  segvm diff notes@-1 notes\n  segvm diff notes@yesterday try-it --json"
    )]
    Diff {
        /// The one
        a: ImageRef,
        /// The other
        b: ImageRef,
    },
    /// Sums up the store: images, commits, packs, bytes on disk
    #[command(after_help = "Examples:\n  segvm stats")]
    Stats,
    /// Makes a new image that starts at a commit of another
    #[command(
        after_help = "Examples:\n  segvm branch notes try-it\n  segvm branch notes@yesterday rescued"
    )]
    Branch {
        /// The commit
        #[arg(value_name = "IMAGE[@REF]")]
        from: ImageRef,
        /// The new image
        new: ImageName,
    },
    /// Names a commit so that it is kept, lists names, or takes one away
    #[command(
        after_help = "Examples:\n  segvm tag notes\n  segvm tag notes before-upgrade\n  segvm tag notes@-3 good\n  segvm tag notes good --delete"
    )]
    Tag(Tag),
    /// Removes images with their commits and tags; `gc` then frees their blocks
    #[command(after_help = "Examples:\n  segvm rm try-it\n  segvm rm a b c && segvm gc")]
    Rm {
        /// The images
        #[arg(required = true)]
        images: Vec<ImageName>,
    },
    /// Makes an older commit the newest: a new commit that equals it. Nobody may have the image open
    #[command(
        after_help = "Examples:\n  segvm restore notes@-1\n  segvm restore notes@before-upgrade"
    )]
    Restore {
        /// The commit
        #[arg(value_name = "IMAGE@REF")]
        image: ImageRef,
    },
    /// Takes the lease of an image from whoever has it: that program's next commit is refused, for good
    #[command(after_help = "Examples:\n  segvm steal notes")]
    Steal {
        /// The image
        image: ImageName,
    },
    /// Frees what no commit and no tag needs. Nobody may have the store open
    #[command(after_help = "Examples:\n  segvm gc --dry-run\n  segvm gc")]
    Gc {
        /// Says what would be freed, and changes nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Checks the store: its structure, or every hash. Changes nothing; programs may go on meanwhile
    #[command(after_help = "Examples:\n  segvm fsck\n  segvm fsck --deep --json")]
    Fsck {
        /// Reads and hashes every block
        #[arg(long)]
        deep: bool,
    },
    /// Writes the bytes of a segment to a file, every block checked against its hash
    #[command(
        after_help = "Examples:\n  segvm export notes heap heap.bin\n  segvm export notes@yesterday heap - | xxd | less"
    )]
    Export(Export),
    /// Makes a commit in which a segment has the bytes of a file. Nobody may have the image open
    #[command(
        after_help = "Examples:\n  segvm import notes heap heap.bin\n  segvm import fresh data data.bin --program my-app"
    )]
    Import(Import),
    /// Says what this machine offers, and the knob or run option that is missing for the rest
    #[command(
        after_help = "Examples:\n  segvm doctor\n  docker run --rm IMAGE segvm doctor --json"
    )]
    Doctor,
    /// Writes a shell's completions to stdout
    #[command(
        after_help = "Examples:\n  segvm completions bash > ~/.local/share/bash-completion/completions/segvm"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Writes the manual pages into a directory
    #[command(after_help = "Examples:\n  segvm man ~/.local/share/man/man1 && man segvm-show")]
    Man {
        /// The directory, which is made where it is missing
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// The commit
    #[arg(value_name = "IMAGE[@REF]")]
    pub(crate) image: ImageRef,
    /// The segment
    pub(crate) segment: String,
    /// The file, which must not exist; - is stdout
    pub(crate) file: PathBuf,
    /// Writes over a file that exists
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// The image, which is made where `--program` says whose it is
    pub(crate) image: ImageName,
    /// The segment, which is made where it is missing: raw bytes in blocks of 16 KiB
    pub(crate) segment: String,
    /// The file; zeros fill up its last block
    pub(crate) file: PathBuf,
    /// The program that opens the image: another one is refused
    #[arg(long, value_name = "NAME")]
    pub(crate) program: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Tag {
    /// The commit
    #[arg(value_name = "IMAGE[@REF]")]
    pub(crate) image: ImageRef,
    /// The name; all are listed where none is said
    pub(crate) name: Option<ImageName>,
    /// Takes the name away; the commit stays
    #[arg(short, long, requires = "name")]
    pub(crate) delete: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Images {
    /// Finds out how much is stored also where there are more than 1,000 images
    #[arg(long)]
    pub(crate) stored: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Log {
    /// The image
    pub(crate) image: ImageName,
    /// At most so many commits
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The commit
    #[arg(value_name = "IMAGE[@REF]")]
    pub(crate) image: ImageRef,
    /// Draws each segment as a strip of blocks, those that this commit changed lit
    #[arg(long)]
    pub(crate) map: bool,
    /// Prints the value of this root as JSON, by the schema that is stored with it
    #[arg(long, value_name = "NAME", conflicts_with = "map")]
    pub(crate) root: Option<String>,
    /// The heap that has the root, where more than one has a root of that name
    #[arg(long, value_name = "NAME", requires = "root")]
    pub(crate) segment: Option<String>,
    /// Shows at most so many elements of each collection
    #[arg(long, value_name = "N", requires = "root", default_value_t = 100)]
    pub(crate) limit: u64,
    /// Shows at most so many values within values
    #[arg(long, value_name = "N", requires = "root", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) depth: u32,
    /// Draws it into this file
    #[arg(long, value_name = "FILE", requires = "map")]
    pub(crate) svg: Option<PathBuf>,
}

//! What can go wrong, in words for the person at the terminal: what, where, and what to do.

use std::io;

use thiserror::Error;

/// Why a trace cannot be read.
#[derive(Debug, Error)]
pub enum TraceError {
    #[error(
        "{trace}: cannot be opened: {source}\nGive the path of a trace, or '-' for standard input"
    )]
    Open { trace: String, source: io::Error },
    #[error("{trace}: cannot be read: {source}")]
    Read { trace: String, source: io::Error },
    #[error("{trace}: has no requests, so there is nothing to measure")]
    Empty { trace: String },
    #[error("{trace}: line {line}: {found}; expected one key in UTF-8 text")]
    Line {
        trace: String,
        line: u64,
        found: String,
    },
    #[error(
        "{trace}: ends in the middle of a key: {left} byte(s) at offset {offset}; expected keys of 8 bytes each, little-endian\nIs the file cut short, or is it --format text?"
    )]
    Truncated {
        trace: String,
        offset: u64,
        left: usize,
    },
    #[error("{trace}: has more than {} requests; split it", u32::MAX)]
    TooLong { trace: String },
}

/// Why a run ends early.
#[derive(Debug, Error)]
pub enum ReplayError {
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error("standard input is a terminal and no trace was given\nGive paths, or pipe a trace in")]
    NoTrace,
    #[error("'-' stands {0} times among the traces; standard input can be read once")]
    StandardInputTwice(usize),
    #[error("larder does not take a capacity of {entries} entries: {source}")]
    Capacity {
        entries: u64,
        source: larder::BuildError,
    },
    #[error(
        "larder answered request {request} with another key's value; this is a bug of larder, please report it with the trace"
    )]
    WrongValue { request: usize },
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
}

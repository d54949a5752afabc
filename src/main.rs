//! The `hbt` command.

fn main() {}

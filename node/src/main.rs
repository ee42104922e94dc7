//! The node's binary: a thin door to the library.

fn main() -> std::process::ExitCode {
    tops_node::cli::main()
}

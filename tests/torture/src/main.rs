//! The torture program; see the library.

fn main() -> std::process::ExitCode {
    baton_torture::main()
}

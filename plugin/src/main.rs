//! The plugin's process: a thin main over the library.

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match &runtime {
        Ok(runtime) => runtime.block_on(cln_federation::app::run()),
        Err(error) => Err(anyhow::anyhow!("no runtime: {error}")),
    };
    if let Err(error) = &result {
        // lightningd is not to be spoken to any more: it is gone, or this is no lightningd.
        eprintln!("cln-federation: {error:#}");
    }
    // Not by returning: a thread that waits on stdin would keep the process alive.
    std::process::exit(i32::from(result.is_err()));
}

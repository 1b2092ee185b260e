//! Sets the two cfgs of the explorer, so that no command needs flags.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for cfg in ["shuttle", "seeded_faults"] {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
        println!("cargo::rustc-cfg={cfg}");
    }
}

//! The pages of the cookbook. Their programs are doc tests of the crate.

use std::fs;
use std::path::Path;

/// The most lines of code on a page.
const MAX_LINES: usize = 99;

#[test]
fn each_page_is_compiled_and_listed_and_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cookbook");
    let index = fs::read_to_string(root.join("README.md")).unwrap();
    let compiled = include_str!("../../src/lib.rs");
    let mut pages = 0;
    for file in fs::read_dir(root).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        if name == "README.md" {
            continue;
        }
        pages += 1;
        let page = fs::read_to_string(file.path()).unwrap();
        assert!(index.contains(&format!("({name})")), "the index does not list {name}");
        let include = format!("include_str!(\"../../../docs/cookbook/{name}\")");
        assert!(compiled.contains(&include), "no test compiles {name}");
        let blocks: Vec<&str> = page.split("```").skip(1).step_by(2).collect();
        let lines: usize = blocks.iter().map(|block| block.lines().count() - 1).sum();
        assert!((1..=MAX_LINES).contains(&lines), "{name} has {lines} lines of code");
        for block in blocks {
            assert!(block.starts_with("rust\n"), "{name} has a block that no test runs");
        }
        for part in ["**For production.**", "**What can go wrong.**"] {
            assert!(page.contains(part), "{name} lacks {part}");
        }
    }
    assert_eq!(pages, index.lines().filter(|line| line.starts_with("| [")).count());
}

#[test]
fn the_page_about_mcp_shows_the_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/mcp.md")).unwrap();
    let example = fs::read_to_string(root.join("examples/mcp_quickstart.rs")).unwrap();
    let shown = page.split("```rs\n").nth(1).and_then(|rest| rest.split("```").next());
    assert!(shown == Some(&*example), "copy the example into the page");
    // The page says so.
    let protection = example.split("// --- ").nth(2).unwrap();
    let protection = protection.split("#[tokio::main]").next().unwrap();
    assert!(protection.lines().filter(|line| !line.trim().is_empty()).count() < 60);
}

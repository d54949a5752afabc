//! What build.rs makes of declarations in kernels/ (build/contract/), of sources that are written here: other declarations
//! make other Rust, so that a caller who is left behind does not compile, and what cannot be read is an error with its line.

#[path = "../build/contract/mod.rs"]
mod reader;

/// A kernel of its own, as Rust; spaces and lines do not count.
fn rust(text: &str) -> String {
    rust_of(&[("a.cu", text)])
}

fn rust_of(files: &[(&str, &str)]) -> String {
    let text = reader::contract(files).unwrap_or_else(|fault| panic!("{fault}"));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn fault(text: &str) -> String {
    reader::contract(&[("a.cu", text)]).expect_err("this is read").to_string()
}

/// The fields of a launcher.
fn fields(rust: &str, name: &str) -> String {
    let (_, rest) = rust.split_once(&format!("pub struct {name}<")).unwrap_or_else(|| panic!("no {name} in {rust}"));
    let (_, rest) = rest.split_once("> { ").unwrap();
    rest.split_once(" }").unwrap().0.replace("pub ", "")
}

#[test]
fn a_launcher_has_the_parameters_of_its_kernel() {
    let text = "constexpr int THREADS = 64;\n\
        KERNEL(add_rows, THREADS, float* out, const bf16* __restrict__ x, NULLABLE const i32* rows, float scale, i64 n) {}\n";
    let read = rust(text);
    let all = "out: Out<'a, f32>, x: In<'a, bf16>, rows: Option<In<'a, i32>>, scale: f32, n: i64,";
    assert_eq!(fields(&read, "AddRows"), all);
    assert!(read.contains(r#"= ("a", "add_rows", THREADS);"#), "{read}");
    let given = "Parameter::of(&self.out), Parameter::of(&self.x), Parameter::of(&self.rows), Parameter::of(&self.scale), \
                 Parameter::of(&self.n)";
    assert!(read.contains(&format!("let parameters = [{given}];")), "{read}");
    // A type, a name, an order that is another is another launcher.
    for (from, to, fields_now) in [
        ("i64 n", "i32 n", all.replace("n: i64", "n: i32")),
        ("float scale", "float factor", all.replace("scale", "factor")),
        ("const bf16* __restrict__ x", "bf16* x", all.replace("x: In", "x: Out")),
        ("NULLABLE const", "const", all.replace("Option<In<'a, i32>>", "In<'a, i32>")),
        ("float scale, i64 n", "i64 n, float scale", all.replace("scale: f32, n: i64,", "n: i64, scale: f32,")),
    ] {
        assert_eq!(fields(&rust(&text.replace(from, to)), "AddRows"), fields_now);
    }
}

#[test]
fn kernels_of_both_elements_have_one_launcher() {
    let read = rust(
        "#define ADD(suffix, E) \\\n    KERNEL(add##suffix, 32, E* out, const float* x) {}\n\
         #if WANTS_F32\nADD(_f32, float)\n#endif\n#if !WANTS_F32 && !defined(OTHER)\nADD(_bf16, bf16)\nADD(_f32, float)\n#endif\n",
    );
    assert_eq!(fields(&read, "Add"), "out: Out<'a, E>, x: In<'a, f32>,");
    assert!(read.contains("suffix: Some(E::NAME)"), "{read}");
    let message = fault("KERNEL(add_f32, 32, float* out) {}\nKERNEL(add_bf16, 32, bf16* out, i64 n) {}\n");
    assert_eq!(message, "kernels/a.cu:1: add_f32 and add_bf16 differ in more than their elements");
    let message = fault("\nKERNEL(add_f32, 32, float* out) {}\n");
    assert_eq!(message, "kernels/a.cu:2: add_f32 is there, and add_bf16 is not");
}

#[test]
fn kernels_of_one_macro_have_one_launcher_to_choose_from() {
    let header = "#pragma once\n#define WHOLE(name, threads, ...) KERNEL(add_##name, threads, __VA_ARGS__) { f(name); }\n\
         #define BOTH(size) WHOLE(size##_up, size, float* x, i64 n) WHOLE(size##_down, 2 * size, float* x, i64 n)\n";
    let files =
        [("a.cu", "#include \"h.cuh\"\nBOTH(32)\n"), ("b.cu", "#include \"h.cuh\"\nBOTH(64)\n"), ("h.cuh", header)];
    let read = rust_of(&files);
    assert!(read.contains("pub enum AddInstance { N32Up, N32Down, N64Up, N64Down, }"), "{read}");
    assert!(read.contains(r#"AddInstance::N64Down => ("b", "add_64_down", (2 * 64)),"#), "{read}");
    // In the header's module, as both files have it.
    assert!(read.split("pub mod ").any(|module| module.starts_with("h_cuh") && module.contains("struct Add<'a>")));
    let other = "#define ADD(name, T) KERNEL(add_##name, 32, T x) {}\nADD(a, i32)\nADD(b, i64)\n";
    assert_eq!(fault(other), "kernels/a.cu:1: add_a and add_b come of one KERNEL, and their parameters differ");
}

#[test]
fn constants_are_told_in_rust() {
    let read = rust_of(&[
        ("h.cuh", "constexpr int WARP = 32;\nconstexpr float HALF = 0.5f; // not an integer\n"),
        (
            "a.cu",
            "#include \"h.cuh\"\n#define TWICE(x) (2 * (x))\n\
             constexpr int ROWS = 1 << 3, THREADS = TWICE(ROWS) + WARP * 4;\n\
             template <int Head> struct Shape {\n    static constexpr int M = Head <= 64 ? 2 : 1;\n\
             static constexpr int BYTES = M * ROWS * sizeof(bf16);\n    int x;\n};\n\
             template <int Head, int Turn> constexpr int MOST = Shape<Head>::BYTES + int(Turn);\n\
             __device__ constexpr int bytes(int rows, int own) { return rows * own | 1; }\n\
             inline int f(int x) { constexpr int WARP = 7; return x + WARP; }\n",
        ),
    ]);
    for told in [
        "pub const WARP: usize = 32;",
        "pub const ROWS: usize = (1 << 3);",
        "pub const THREADS: usize = ((2 * ROWS) + (WARP * 4));",
        "impl<const Head: usize> Shape<Head> { pub const M: usize = (if (Head <= 64) { 2 } else { 1 });",
        "pub const BYTES: usize = ((Self::M * ROWS) * 2);",
        "pub const fn MOST<const Head: usize, const Turn: usize>() -> usize { (Shape::<Head>::BYTES + Turn) }",
        "pub const fn bytes(rows: usize, own: usize) -> usize { ((rows * own) | 1) }",
    ] {
        assert!(read.contains(told), "{told}\n{read}");
    }
    assert!(!read.contains("HALF") && !read.contains("= 7"), "{read}");
}

#[test]
fn a_struct_that_is_passed_is_compared_with_rust_s() {
    let read = rust(
        "template <int N> struct Blocks { u32 n; u32 first[N + 1]; };\n\
         struct List { float* x[8]; Blocks<8> blocks; bool is_empty() const { return blocks.n == 0; } };\n\
         struct Other { int x; };\nKERNEL(zero, 32, __grid_constant__ const List list) {}\n",
    );
    assert_eq!(fields(&read, "Zero"), "list: &'a List,");
    for told in [
        "assert!(offset_of!(List, x) == layout.field(8, 8 * 8)); let _: fn(&List) -> &[u64] = |of| &of.x;",
        "{ const N: usize = 8;",
        "assert!(offset_of!(Blocks<{ 8 }>, first) == layout.field(4, 4 * (N + 1)));",
        "assert!(size_of::<List>() == layout.size());",
    ] {
        assert!(read.contains(told), "{told}\n{read}");
    }
    assert!(!read.contains("Other"), "{read}");
}

#[test]
fn what_cannot_be_read_is_an_error_with_its_line() {
    for (text, message) in [
        ("\nKERNEL(f, 32, float** x) {}\n", "2: cannot read this KERNEL: f: the parameter \"float * * x\""),
        ("KERNEL(f, 32, float*) {}\n", "1: cannot read this KERNEL: f: the parameter \"float *\""),
        ("KERNEL(f, 32, NULLABLE i64 n) {}\n", "1: cannot read this KERNEL: f: the parameter \"NULLABLE i64 n\""),
        ("KERNEL(f, 32, i64 n);\n", "1: cannot read this KERNEL: there is no body behind it"),
        ("KERNEL(f) {}\n", "1: cannot read this KERNEL: it takes a name, threads a block, and the kernel's parameters"),
        ("KERNEL(f, MOST, i64 n) {}\n", "1: \"MOST\" names what is no integer constant of this file or its headers"),
        (
            "\n\nKERNEL(f, 32, char* x) {}\n",
            "3: the parameter x: Rust has no char to pass, see build/contract/launchers.rs",
        ),
        ("KERNEL(f, 32, i64 n) {}\nKERNEL(f, 32, i64 n) {}\n", "2: kernels/a.cu declares f twice"),
        (
            "namespace {\nKERNEL(f, 32, i64 n) {}\n}\n",
            "2: a kernel is declared at the file's own level, not within brackets",
        ),
        ("constexpr int A = B + 1;\n", "1: \"B + 1\" names what is no integer constant of this file or its headers"),
        ("constexpr int A = f<;\n", "1: cannot read the integer \"f <\""),
        ("#if HBT_TYPE == \"a\"\n#endif\n", "1: cannot read the integer \"HBT_TYPE == \\\"a\\\"\""),
        ("#include \"b.cuh\"\n", "1: kernels/ has no b.cuh"),
        ("#define F(x) x\nF(1, 2)\n", "2: F takes 1 arguments, not 2"),
        ("template <int N KERNEL(f, 32, i64 n) {}\n", "1: cannot read the kernel that is declared here"),
    ] {
        assert_eq!(fault(text), format!("kernels/a.cu:{message}"), "{text}");
    }
    let header = reader::contract(&[("h.cuh", "KERNEL(f, 32, i64 n) {}\n")]).unwrap_err().to_string();
    assert_eq!(header, "kernels/h.cuh:1: a header declares f, which every file that includes it would have");
}

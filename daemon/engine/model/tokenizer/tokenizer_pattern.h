/* tokenizer_pattern.h: how the Qwen2 tokenizer cuts text into words, as a PCRE2 pattern.
 *
 * The alternatives and their order are the model's: contractions; letters with one
 * leading character that is neither letter nor number nor line end; single numbers;
 * other characters with a leading space and trailing line ends; spaces up to line ends;
 * spaces before the last one of a run; spaces.
 *
 * What is a letter, a number or a space must be what Python's regex module says, so that
 * it does not depend on the age of the PCRE2 library: PCRE2 10.42 of Debian 12 knows Unicode 14 and
 * counts U+180E as a space. So the spaces are written out, and the letters and numbers
 * that Unicode 15 to 17 added are listed (found by asking both about every code point).
 */
#ifndef LANCE_TOKENIZER_PATTERN_H
#define LANCE_TOKENIZER_PATTERN_H

#define LETTERS_SINCE_UNICODE_15 \
    "\\x{558}\\x{58b}-\\x{58c}\\x{88f}\\x{c5c}\\x{cdc}\\x{1c89}-\\x{1c8a}\\x{208f}\\x{209d}-\\x{209f}" \
    "\\x{a7cb}-\\x{a7cf}\\x{a7d2}\\x{a7d4}\\x{a7da}-\\x{a7dd}\\x{a7e2}\\x{a7f1}\\x{ab6c}-\\x{ab6d}" \
    "\\x{105c0}-\\x{105f3}\\x{107bb}-\\x{107bf}\\x{10940}-\\x{10959}\\x{10d4a}-\\x{10d65}" \
    "\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec7}\\x{10ed9}-\\x{10eee}\\x{1123f}-\\x{11240}" \
    "\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}\\x{11b0a}" \
    "\\x{11bc0}-\\x{11be0}\\x{11db0}-\\x{11ddb}\\x{11df1}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}" \
    "\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}\\x{16d40}-\\x{16d6c}" \
    "\\x{16ea0}-\\x{16eb8}\\x{16ebb}-\\x{16ed3}\\x{16ff2}-\\x{16ff3}\\x{187f8}-\\x{187ff}" \
    "\\x{18cd6}-\\x{18cda}\\x{18cff}\\x{18d09}-\\x{18d20}\\x{18d80}-\\x{18df2}\\x{18e00}-\\x{19191}" \
    "\\x{191a0}-\\x{191d2}\\x{1b123}-\\x{1b128}\\x{1b132}\\x{1b155}\\x{1b168}\\x{1d6a6}\\x{1df1f}-\\x{1df81}" \
    "\\x{1df90}-\\x{1df96}\\x{1dfcd}-\\x{1dfff}\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}" \
    "\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{1e6c0}-\\x{1e6de}\\x{1e6e0}-\\x{1e6e2}\\x{1e6e4}-\\x{1e6e5}" \
    "\\x{1e6e7}-\\x{1e6ed}\\x{1e6f0}-\\x{1e6f4}\\x{1e6fe}-\\x{1e6ff}\\x{2b739}-\\x{2b73f}\\x{2b81e}" \
    "\\x{2cea2}-\\x{2cead}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{33479}\\x{3d000}-\\x{3fc3f}"

#define NUMBERS_SINCE_UNICODE_15 \
    "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11de0}-\\x{11de9}" \
    "\\x{11f50}-\\x{11f59}\\x{1246f}\\x{12475}-\\x{1247f}\\x{12550}-\\x{12686}\\x{16130}-\\x{16139}" \
    "\\x{16d70}-\\x{16d79}\\x{16ff4}-\\x{16ff6}\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}" \
    "\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"

#define LETTER "\\p{L}" LETTERS_SINCE_UNICODE_15
#define NUMBER "\\p{N}" NUMBERS_SINCE_UNICODE_15
#define SPACE \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

#define TOKENIZER_PATTERN \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)" \
    "|[^\\r\\n" LETTER NUMBER "]?[" LETTER "]+" \
    "|[" NUMBER "]" \
    "| ?[^" SPACE LETTER NUMBER "]+[\\r\\n]*" \
    "|[" SPACE "]*[\\r\\n]+" \
    "|[" SPACE "]+(?![^" SPACE "])" \
    "|[" SPACE "]+"

#endif

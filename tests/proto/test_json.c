/* Strict JSON: what is accepted, what is refused and where, and how values print. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/json/json.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void grammar_of_rfc_8259_is_accepted(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{}",
        "[]",
        " [ ] ",
        "0",
        "-0",
        "-0.0",
        "1",
        "-1.5e-3",
        "1E5",
        "1e+5",
        "123456789012345678901234567890",
        "true",
        "false",
        "null",
        "\"\"",
        "\"a\"",
        "\t\r\n [1 , 2 ]\n",
        "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
        "{\"a\":{\"b\":[1,2,{\"c\":null}]}}",
        "{\"a\":1,\"A\":2}",
        "\"\\u00e9\\n\\t\\b\\f\\r\\/\\\\\\\"\"",
        "\"\\ud83d\\ude00\"",
        "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xed\x9f\xbf \xf4\x8f\xbf\xbf\"",
        "\"\x7f\"",
        "{\"\":0}",
        "1e-400",
        "0.00000000000000000000000000000000000000000000000000000000001",
    };
    for (size_t i = 0; i < COUNT(texts); i++) {
        cJSON *value = NULL;
        struct err err = {0};
        if (json_parse(&value, texts[i], strlen(texts[i]), &err) != 0) {
            fail_msg("%s: %s", texts[i], err.text);
        }
        assert_non_null(value);
        cJSON_Delete(value);
    }
}

static void everything_else_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        " ",
        "{",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{1:1}",
        "{\"a\":1 \"b\":2}",
        "01",
        "-01",
        "00",
        "-",
        "+1",
        ".5",
        "1.",
        "1.e1",
        "1e",
        "1e+",
        "0x10",
        "NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        "True",
        "tru",
        "nulll",
        "true false",
        "1 2",
        "{} x",
        "[]]",
        "\"",
        "\"a",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\u0000\"",
        "\"a\\u0000b\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800x\"",
        "\"\\ud800\\n\"",
        "\"\n\"",
        "\"\t\"",
        "\"\x01\"",
        "\"\x1f\"",
        "\"\x80\"",
        "\"\xc3\"",
        "\"\xc0\xaf\"",
        "\"\xe0\x80\xaf\"",
        "\"\xed\xa0\x80\"",
        "\"\xf4\x90\x80\x80\"",
        "\"\xf8\x88\x80\x80\x80\"",
        "\"\xff\"",
        "\"\xe2\x82\"",
        "\xef\xbb\xbf{}",
        "\xa0",
        "/* c */ 1",
        "// c\n1",
        "[1]//",
        "\f1",
        "\v1",
        "\xe2\x80\xa8[]",
        "[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]",
        "{\"a\":1,\"a\":2}",
        "{\"a\":1,\"\\u0061\":2}",
        "[{\"x\":{\"a\":1,\"b\":2,\"a\":3}}]",
        "0.000000000000000000000000000000000000000000000000000000000000001",
    };
    for (size_t i = 0; i < COUNT(texts); i++) {
        cJSON *value = NULL;
        struct err err = {0};
        if (json_parse(&value, texts[i], strlen(texts[i]), &err) != ERR_INVALID) {
            fail_msg("accepted: %s", texts[i]);
        }
        assert_null(value);
        assert_true(err.text[0] != '\0');
    }
}

static void raw_nul_is_refused_anywhere(void **state)
{
    (void)state;
    cJSON *value;
    assert_int_equal(json_parse(&value, "\0", 1, NULL), ERR_INVALID);
    assert_int_equal(json_parse(&value, "1\0", 2, NULL), ERR_INVALID);
    assert_int_equal(json_parse(&value, "\"a\0b\"", 5, NULL), ERR_INVALID);
    assert_int_equal(json_parse(&value, "\"\\\0\"", 4, NULL), ERR_INVALID);
    assert_int_equal(json_parse(&value, NULL, 0, NULL), ERR_INVALID);
}

static void text_is_not_read_past_its_length(void **state)
{
    (void)state;
    static const char text[] = "{\"key\":[1.5,true,\"\\u00e9\xc3\xa9\"]}";
    size_t len = sizeof(text) - 1;
    cJSON *value;
    for (size_t cut = 0; cut < len; cut++) { /* the sanitizer watches the end of the block */
        char *copy = malloc(cut > 0 ? cut : 1);
        assert_non_null(copy);
        memcpy(copy, text, cut);
        assert_int_equal(json_parse(&value, copy, cut, NULL), ERR_INVALID);
        free(copy);
    }
}

static void errors_say_line_and_column(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{\n  \"a\": 01\n}", "line 2 column 8: a number with a leading zero"},
        {"[1,\n2,\n3", "line 3 column 2: the text ends where ',' or ']' should be"},
        {"{\"a\":1,\"b\":{\"c/~\":1,\"c/~\":2}}", "duplicate key /b/c~1~0"},
        {"[{\"a\":[]},{\"k\":[],\"k\":1}]", "duplicate key /1/k"},
        {"[1e999]", "line 1 column 2: the number 1e999 does not fit a double"},
        {"{\"a\" 1}", "line 1 column 6: '1' where ':' should be"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        cJSON *value;
        struct err err = {0};
        assert_int_equal(json_parse(&value, cases[i].text, strlen(cases[i].text), &err),
                         ERR_INVALID);
        assert_string_equal(err.text, cases[i].message);
    }
}

static void count_duplicate(void *context, const char *pointer)
{
    struct buf *all = context;
    buf_printf(all, "%s;", pointer);
}

static void all_duplicates_can_be_collected(void **state)
{
    (void)state;
    static const char text[] =
        "{\"a\":1,\"b\":{\"x\":1,\"x\":2,\"x\":3},\"a\":2,\"c\":[{\"y\":1,\"y\":1}]}";
    struct buf all;
    cJSON *value;
    buf_init(&all, 1000);
    assert_int_equal(json_parse_keys(&value, text, strlen(text), count_duplicate, &all, NULL),
                     0);
    assert_string_equal(all.data, "/a;/b/x;/c/0/y;");
    cJSON_Delete(value);
    buf_release(&all);
}

static void numbers_print_shortest_and_read_back(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        {0.1, "0.1"},
        {1.0 / 3.0, "0.3333333333333333"},
        {100, "100"},
        {-2, "-2"},
        {1e-8, "1e-8"},
        {9007199254740992.0, "9007199254740992"},
        {1e15, "1000000000000000"},
        {1e300, "1e300"},
        {DBL_MAX, "1.7976931348623157e308"},
        {DBL_MIN, "2.2250738585072014e-308"},
        {-0.0, "-0"},
        {0.001, "0.001"},
        {2.5, "2.5"},
        {1.5e10, "15000000000"},
        {NAN, "null"},
        {INFINITY, "null"},
        {0.30000000000000004, "0.30000000000000004"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct buf out;
        buf_init(&out, 100);
        json_print_number(cases[i].value, &out);
        assert_string_equal(out.data, cases[i].text);
        if (isfinite(cases[i].value)) {
            cJSON *value;
            assert_int_equal(json_parse(&value, out.data, out.len, NULL), 0);
            assert_memory_equal(&value->valuedouble, &cases[i].value, sizeof(double));
            cJSON_Delete(value);
        }
        buf_release(&out);
    }
}

static void random_bit_patterns_survive_printing_and_parsing(void **state)
{
    (void)state;
    uint64_t bits = 88172645463325252U;
    struct buf out;
    buf_init(&out, 100);
    for (int i = 0; i < 20000; i++) {
        double value;
        bits ^= bits << 13; /* xorshift64 */
        bits ^= bits >> 7;
        bits ^= bits << 17;
        memcpy(&value, &bits, sizeof(value));
        if (!isfinite(value)) {
            continue;
        }
        buf_clear(&out);
        json_print_number(value, &out);
        cJSON *parsed;
        assert_int_equal(json_parse(&parsed, out.data, out.len, NULL), 0);
        assert_memory_equal(&parsed->valuedouble, &value, sizeof(double));
        cJSON_Delete(parsed);
    }
    buf_release(&out);
}

static void printed_text_parses_to_the_same_text(void **state)
{
    (void)state;
    static const char text[] = "{\"a\":[1,2.5,-3e-7,true,false,null,"
                               "\"\\u0001\\n\\t\\\"\\\\\xc3\xa9\"],\"o\":{},\"e\":[]}";
    cJSON *value;
    struct buf out;
    buf_init(&out, 1000);
    assert_int_equal(json_parse(&value, text, strlen(text), NULL), 0);
    json_print(value, &out);
    assert_string_equal(out.data, text);
    cJSON_Delete(value);
    buf_release(&out);
}

static void bytes_that_are_not_utf8_print_as_replacements(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 100);
    json_print_string("a\xff\xc3z", &out);
    assert_string_equal(out.data, "\"a\xef\xbf\xbd\xef\xbf\xbdz\"");
    buf_release(&out);
}

static void look_ups_are_typed_and_case_sensitive(void **state)
{
    (void)state;
    static const char text[] = "{\"i\":7,\"big\":9007199254740993,\"huge\":1e17,\"f\":1.5,"
                               "\"s\":\"x\",\"b\":true,\"a\":[],\"o\":{},\"n\":null}";
    cJSON *v;
    int64_t i = -1;
    double d = -1;
    bool b = false;
    assert_int_equal(json_parse(&v, text, strlen(text), NULL), 0);
    assert_true(json_int(&i, v, "i"));
    assert_int_equal(i, 7);
    assert_false(json_int(&i, v, "I"));
    assert_false(json_int(&i, v, "f"));
    assert_false(json_int(&i, v, "huge"));
    assert_false(json_int(&i, v, "s"));
    assert_false(json_int(&i, v, "missing"));
    assert_true(json_real(&d, v, "f"));
    assert_true(d == 1.5);
    assert_false(json_real(&d, v, "n"));
    assert_true(json_bool(&b, v, "b") && b);
    assert_false(json_bool(&b, v, "i"));
    assert_string_equal(json_string(v, "s"), "x");
    assert_null(json_string(v, "i"));
    assert_non_null(json_array(v, "a"));
    assert_null(json_array(v, "o"));
    assert_non_null(json_object(v, "o"));
    assert_null(json_object(v, "a"));
    cJSON_Delete(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grammar_of_rfc_8259_is_accepted),
        cmocka_unit_test(everything_else_is_refused),
        cmocka_unit_test(raw_nul_is_refused_anywhere),
        cmocka_unit_test(text_is_not_read_past_its_length),
        cmocka_unit_test(errors_say_line_and_column),
        cmocka_unit_test(all_duplicates_can_be_collected),
        cmocka_unit_test(numbers_print_shortest_and_read_back),
        cmocka_unit_test(random_bit_patterns_survive_printing_and_parsing),
        cmocka_unit_test(printed_text_parses_to_the_same_text),
        cmocka_unit_test(bytes_that_are_not_utf8_print_as_replacements),
        cmocka_unit_test(look_ups_are_typed_and_case_sensitive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

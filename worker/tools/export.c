/* hebb export: the model folder of a checkpoint. */
#include "worker/tools/options.h"
#include "worker/tools/tool_model.h"
#include "worker/tools/tools.h"

#include <stdio.h>

int tool_export(int argc, char **argv)
{
    const char *out = NULL;
    struct option_list rest;
    const struct option_row options[] = {{"out", OPTION_TEXT, &out, 0, 0}, {0}};
    int code = options_parse(argc, argv, options, &rest);
    if (code != EXIT_DONE) {
        return code;
    }
    if (rest.count != 1 || !out) {
        return tool_usage(argv[0], "one checkpoint or job folder and --out FOLDER are needed");
    }
    struct err err = {0};
    struct tool_place place;
    struct tool_model tool = {0};
    int rc = tool_place_find(&place, rest.items[0], &err);
    if (rc != 0) {
        return tool_fail(&err);
    }
    rc = tool_model_open(&tool, &place, 1, 1, 1, &err);
    if (rc == 0) {
        rc = model_export(tool.model, out, place.method, place.tokenizer, &err);
    }
    if (rc == 0) {
        printf("%s: %s from %s\n", out, place.method, place.path);
    }
    tool_model_close(&tool);
    tool_place_release(&place);
    return rc == 0 ? EXIT_DONE : tool_fail(&err);
}

/* The `hebb` commands that use the engine; table.c lists them. */
#ifndef HEBB_TOOLS_TOOLS_H
#define HEBB_TOOLS_TOOLS_H

int tool_train(int argc, char **argv);
int tool_data(int argc, char **argv);
int tool_eval(int argc, char **argv);
int tool_generate(int argc, char **argv);
int tool_inspect(int argc, char **argv);
int tool_export(int argc, char **argv);
int tool_bench(int argc, char **argv);

#endif

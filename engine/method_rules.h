/* The rules of a refresh by name: the words of a job's JSON and of a checkpoint's train.json.
 */
#ifndef HEBB_ENGINE_METHOD_RULES_H
#define HEBB_ENGINE_METHOD_RULES_H

/* Names in the order of enum removal_rule, score_rule and repair_rule; each list ends with
 * NULL. */
extern const char *const removal_rule_names[];
extern const char *const score_rule_names[];
extern const char *const repair_rule_names[];

/* The place of name in such a list, -1 if it is not there. */
int rule_find(const char *const *names, const char *name);

#endif

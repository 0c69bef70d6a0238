/* ctrl-C as a descriptor that becomes readable, for loops that wait. */
#ifndef HEBB_CLI_INTERRUPT_H
#define HEBB_CLI_INTERRUPT_H

/* Takes SIGINT until interrupt_end and returns the descriptor; -1 after a message. Not nested.
 */
int interrupt_begin(void);
void interrupt_end(void); /* closes the descriptor; SIGINT does what it did before */

#endif

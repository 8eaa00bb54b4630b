/* list.h: an intrusive doubly linked list, circular around its head. A node is in at most one list;
 * a removed node points at itself, so removing twice is harmless. */
#pragma once

#include "common/macros.h"

struct list {
    struct list *next;
    struct list *prev;
};

static inline void list_init(struct list *list)
{
    list->next = list;
    list->prev = list;
}

static inline bool list_is_empty(const struct list *list)
{
    return list->next == list;
}

static inline void list_append(struct list *head, struct list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void list_remove(struct list *node)
{
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it cannot see that this moves the head, so loops find the node again. */
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* Walks nodes of a type; the current one may be removed, no other. */
/* NOLINTBEGIN(bugprone-macro-parentheses): a type, a name to declare and a member take no parentheses. */
#define LIST_FOREACH(node, head, type, member)                                                     \
    for (type *node = CONTAINER_OF((head)->next, type, member),                                    \
              *node##_next_ = CONTAINER_OF(node->member.next, type, member);                       \
            &node->member != (head);                                                               \
            node = node##_next_, node##_next_ = CONTAINER_OF(node->member.next, type, member))
/* NOLINTEND(bugprone-macro-parentheses) */

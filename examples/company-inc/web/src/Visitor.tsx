/** The name that changes are signed with. It is a courtesy among colleagues, not a login. */
import { Button, Popover, Stack, Text, TextInput } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import { getVisitor, putVisitor } from './api';

export function Visitor() {
  const client = useQueryClient();
  const [opened, setOpened] = useState(false);
  const [name, setName] = useState('');
  const visitor = useQuery({ queryKey: ['visitor'], queryFn: getVisitor, staleTime: Infinity });
  const save = useMutation({
    mutationFn: putVisitor,
    onSuccess: (saved) => {
      client.setQueryData(['visitor'], saved);
      setOpened(false);
    },
  });
  if (!visitor.data?.available) return null;

  function submit(event: FormEvent): void {
    event.preventDefault();
    save.mutate(name);
  }

  function toggle(): void {
    setName(visitor.data?.name ?? '');
    setOpened(!opened);
  }

  return (
    <Popover opened={opened} onChange={setOpened} position="bottom-end" trapFocus returnFocus>
      <Popover.Target>
        <Button variant="subtle" size="compact-sm" maw={160} onClick={toggle}>
          {visitor.data.name || 'Who are you?'}
        </Button>
      </Popover.Target>
      <Popover.Dropdown>
        <form onSubmit={submit}>
          <Stack gap="xs">
            <TextInput
              label="Your name"
              maxLength={60}
              value={name}
              error={save.error?.message}
              onChange={(event) => setName(event.currentTarget.value)}
            />
            <Text size="xs" c="dimmed" maw={220}>
              Shown beside what you change. This is not a login.
            </Text>
            <Button type="submit" size="xs" loading={save.isPending}>
              Keep
            </Button>
          </Stack>
        </form>
      </Popover.Dropdown>
    </Popover>
  );
}

/* Lock-steps Minetest to a controlling process: one frame for one order.
 *
 * Loaded into the game by LD_PRELOAD. Where the game shows a frame (glXSwapBuffers), this library copies the picture
 * into shared memory, waits until the server thread has lived through the same game time, sends a report, and blocks
 * until the next order comes. An order holds key events, a turn of the mouse and the game time that passes until the
 * next frame. Between two frames the game's clock stands still.
 *
 * The same library guards the X server: whoever loads it dies with the process that started it, also if that one is
 * killed. (PR_SET_PDEATHSIG would do it at the end of the *thread* that started the game, which may come early.)
 *
 * The structures `order` and `report` are those of game.py.
 */
#define _GNU_SOURCE
#include <GL/gl.h>
#include <GL/glx.h>
#include <X11/Xlib.h>
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define MAX_KEYS 48
#define MAX_TEXT 32768
#define SERVER_PATIENCE_MS 250 /* how long a frame waits for the server; the game goes on without it then */

enum { RUN_FREELY = 0, STEP = 1 };

struct order {
    uint32_t kind;
    uint32_t step_us;         /* game time until the next frame */
    int32_t turn_x, turn_y;   /* mouse movement in pixels, right and down */
    uint32_t key_count;
    uint32_t keys[MAX_KEYS];  /* X keysym, with the highest bit set where the key goes up */
};

struct report {
    uint64_t frame;
    double game_seconds;      /* since the clock was taken over */
    double behind_seconds;    /* how much of it the server has not lived through yet */
    uint32_t width, height;
    uint32_t text_bytes;      /* what the world mod last said follows the structure */
    uint32_t waited_us;       /* real time that this frame waited for the server */
};

#define KEY_UP 0x80000000u
#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *address = dlsym(RTLD_NEXT, name);
    if (!address) {
        fprintf(stderr, "neuralsim shim: the game's libraries have no %s\n", name);
        _exit(70);
    }
    return address;
}

/* ---- the guard ---- */

static int lifeline = -1;
static pid_t parent;
static char folder[4096]; /* of the game: nobody else is left to remove it */

static void remove_folder(void) {
    /* Only ever a folder that game.py has made for this very game. */
    if (!strstr(folder, "/neuralsim-minetest-")) return;
    pid_t game = getpid();
    if (fork() != 0) return;
    while (getppid() == game) usleep(20000);
    execl("/bin/rm", "rm", "-rf", "--", folder, (char *)NULL);
    _exit(73);
}

static void *guard(void *unused) {
    (void)unused;
    struct pollfd line = {lifeline, 0, 0};
    /* The line breaks with the parent's end of it; a copy in a fork of the parent may outlive the parent itself. */
    while (poll(&line, 1, 500) <= 0 && getppid() == parent) {
    }
    remove_folder();
    kill(getpid(), SIGTERM); /* lets an X server remove its lock file */
    sleep(2);
    kill(getpid(), SIGKILL);
    return NULL;
}

__attribute__((constructor)) static void begin(void) {
    const char *line = getenv("NEURALSIM_LIFELINE"), *starter = getenv("NEURALSIM_PARENT");
    if (!line || !starter) return;
    lifeline = atoi(line);
    parent = atoi(starter);
    const char *mine = getenv("NEURALSIM_FOLDER");
    if (mine && strlen(mine) < sizeof folder) strcpy(folder, mine);
    unsetenv("LD_PRELOAD"); /* children of the game and of the X server go without */
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all); /* signals belong to the guarded program's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, guard, NULL) == 0) pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- the clock ---- */

static atomic_int locked;
static atomic_llong clock_ns;   /* what the game's clock shows while it is locked */
static atomic_llong granted_us; /* game time of all steps */
static atomic_llong lived_us;   /* the part of it that the server has lived through */
static _Thread_local int is_server;

int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*original)(clockid_t, struct timespec *);
    if (!original) original = REAL(clock_gettime);
    if (which == CLOCK_MONOTONIC_RAW && atomic_load(&locked)) { /* the clock that Minetest reads */
        long long ns = atomic_load(&clock_ns);
        now->tv_sec = ns / 1000000000LL;
        now->tv_nsec = ns % 1000000000LL;
        return 0;
    }
    return original(which, now);
}

static int server_is_behind(void) {
    /* Half a step of tolerance: the server gets the very numbers of the client, but as sums of floats. */
    return atomic_load(&locked) && atomic_load(&lived_us) + 20000 < atomic_load(&granted_us);
}

/* Between two steps the server waits up to 30 ms of real time for packets; here it wakes when game time has passed. */
int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
    static int (*original)(sem_t *, const struct timespec *);
    if (!original) original = REAL(sem_timedwait);
    if (!is_server || !atomic_load(&locked)) return original(semaphore, until);
    for (;;) {
        struct timespec slice;
        clock_gettime(CLOCK_REALTIME, &slice);
        slice.tv_nsec += 1000000;
        if (slice.tv_nsec >= 1000000000) {
            slice.tv_nsec -= 1000000000;
            slice.tv_sec++;
        }
        int last = slice.tv_sec > until->tv_sec || (slice.tv_sec == until->tv_sec && slice.tv_nsec >= until->tv_nsec);
        int result = original(semaphore, last ? until : &slice);
        if (result == 0 || errno != ETIMEDOUT || last) return result;
        if (server_is_behind()) {
            errno = ETIMEDOUT;
            return -1;
        }
    }
}

/* ---- what the world mod says ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t server_stepped = PTHREAD_COND_INITIALIZER;
static char text[MAX_TEXT];
static uint32_t text_bytes;

/* Called by the world mod, through LuaJIT's FFI, at the end of each of its steps. */
int neuralsim_server_stepped(double seconds, const char *says, int bytes) {
    is_server = 1;
    if (bytes < 0 || bytes > MAX_TEXT) return -1;
    pthread_mutex_lock(&mutex);
    memcpy(text, says, bytes);
    text_bytes = bytes;
    if (atomic_load(&locked)) atomic_fetch_add(&lived_us, (long long)(seconds * 1e6 + 0.5));
    pthread_cond_broadcast(&server_stepped);
    pthread_mutex_unlock(&mutex);
    return 0;
}

/* Returns the microseconds that it waited. */
static uint32_t wait_for_server(void) {
    struct timespec from, until, now;
    clock_gettime(CLOCK_REALTIME, &from);
    until = from;
    until.tv_nsec += SERVER_PATIENCE_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&mutex);
    while (server_is_behind() && pthread_cond_timedwait(&server_stepped, &mutex, &until) == 0) {
    }
    pthread_mutex_unlock(&mutex);
    clock_gettime(CLOCK_REALTIME, &now);
    return (now.tv_sec - from.tv_sec) * 1000000 + (now.tv_nsec - from.tv_nsec) / 1000;
}

/* ---- the mouse ---- */

static int mouse_x, mouse_y;

Bool XQueryPointer(Display *display, Window window, Window *root, Window *child, int *root_x, int *root_y, int *x,
                   int *y, unsigned *mask) {
    static Bool (*original)(Display *, Window, Window *, Window *, int *, int *, int *, int *, unsigned *);
    if (!atomic_load(&locked)) {
        if (!original) original = REAL(XQueryPointer);
        return original(display, window, root, child, root_x, root_y, x, y, mask);
    }
    *root = *child = window;
    *root_x = *x = mouse_x;
    *root_y = *y = mouse_y;
    *mask = 0;
    return True;
}

int XWarpPointer(Display *display, Window from, Window to, int from_x, int from_y, unsigned width, unsigned height,
                 int x, int y) {
    static int (*original)(Display *, Window, Window, int, int, unsigned, unsigned, int, int);
    mouse_x = x;
    mouse_y = y;
    if (atomic_load(&locked)) return 1;
    if (!original) original = REAL(XWarpPointer);
    return original(display, from, to, from_x, from_y, width, height, x, y);
}

/* Declared here, as it is the only function of libXi: its headers need not be installed. */
int XIWarpPointer(Display *display, int device, Window from, Window to, double from_x, double from_y, unsigned width,
                  unsigned height, double x, double y) {
    static int (*original)(Display *, int, Window, Window, double, double, unsigned, unsigned, double, double);
    mouse_x = (int)x;
    mouse_y = (int)y;
    if (atomic_load(&locked)) return 0;
    if (!original) original = REAL(XIWarpPointer);
    return original(display, device, from, to, from_x, from_y, width, height, x, y);
}

/* ---- the keyboard ---- */

static void put_key(Display *display, Window window, uint32_t key, unsigned long time_ms) {
    XEvent event;
    memset(&event, 0, sizeof event);
    event.type = key & KEY_UP ? KeyRelease : KeyPress;
    event.xkey.display = display;
    event.xkey.window = window;
    event.xkey.root = DefaultRootWindow(display);
    event.xkey.keycode = XKeysymToKeycode(display, key & ~KEY_UP);
    event.xkey.same_screen = True;
    event.xkey.time = time_ms;
    XPutBackEvent(display, &event);
}

/* Without a window manager nobody gives the game the focus, and without the focus it ignores keys and mouse. */
static void put_focus(Display *display, Window window) {
    XEvent event;
    memset(&event, 0, sizeof event);
    event.type = FocusIn;
    event.xfocus.display = display;
    event.xfocus.window = window;
    event.xfocus.mode = NotifyNormal;
    XPutBackEvent(display, &event);
}

/* ---- the frame ---- */

static int channel = -1, width, height;
static uint8_t *picture;

static void connect_to_controller(void) {
    const char *to = getenv("NEURALSIM_CHANNEL"), *frame = getenv("NEURALSIM_FRAME");
    const char *w = getenv("NEURALSIM_WIDTH"), *h = getenv("NEURALSIM_HEIGHT");
    if (!to || !frame || !w || !h) {
        fprintf(stderr, "neuralsim shim: NEURALSIM_CHANNEL, _FRAME, _WIDTH and _HEIGHT must be set\n");
        _exit(71);
    }
    width = atoi(w);
    height = atoi(h);
    picture = mmap(NULL, (size_t)width * height * 3, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(frame), 0);
    if (picture == MAP_FAILED) {
        perror("neuralsim shim: the frame's memory");
        _exit(72);
    }
    channel = atoi(to);
}

static void send_report(uint64_t frame, uint32_t waited_us) {
    static char message[sizeof(struct report) + MAX_TEXT];
    struct report report = {.frame = frame, .width = width, .height = height, .waited_us = waited_us};
    long long granted = atomic_load(&granted_us);
    report.game_seconds = granted * 1e-6;
    pthread_mutex_lock(&mutex);
    report.behind_seconds = server_is_behind() ? (granted - atomic_load(&lived_us)) * 1e-6 : 0;
    report.text_bytes = text_bytes;
    memcpy(message + sizeof report, text, text_bytes);
    pthread_mutex_unlock(&mutex);
    memcpy(message, &report, sizeof report);
    ssize_t bytes = sizeof report + report.text_bytes;
    if (send(channel, message, bytes, MSG_NOSIGNAL) != bytes) _exit(0); /* the controller has gone */
}

static void take_clock(Display *display, Window window) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    atomic_store(&clock_ns, now.tv_sec * 1000000000LL + now.tv_nsec);
    mouse_x = width / 2;
    mouse_y = height / 2;
    put_focus(display, window);
    atomic_store(&locked, 1);
}

void glXSwapBuffers(Display *display, GLXDrawable drawable) {
    static uint64_t frame;
    if (channel < 0) connect_to_controller();
    /* The picture leaves by the back buffer; nothing is ever presented, as nobody looks at the screen. */
    glPixelStorei(GL_PACK_ALIGNMENT, 1);
    glReadPixels(0, 0, width, height, GL_RGB, GL_UNSIGNED_BYTE, picture);
    send_report(++frame, atomic_load(&locked) ? wait_for_server() : 0);
    struct order order;
    ssize_t bytes;
    do bytes = recv(channel, &order, sizeof order, 0);
    while (bytes < 0 && errno == EINTR);
    if (bytes != sizeof order || order.key_count > MAX_KEYS) _exit(0);
    if (order.kind == RUN_FREELY) return;
    if (!atomic_load(&locked)) take_clock(display, drawable);
    long long step_ns = order.step_us * 1000LL;
    unsigned long now_ms = (atomic_load(&clock_ns) + step_ns) / 1000000;
    for (uint32_t i = order.key_count; i-- > 0;) put_key(display, drawable, order.keys[i], now_ms);
    mouse_x += order.turn_x;
    mouse_y += order.turn_y;
    atomic_fetch_add(&clock_ns, step_ns);
    atomic_fetch_add(&granted_us, order.step_us);
}

/* required_headers.c: names every missing library at once, with the Debian package that has it. The Makefile
 * preprocesses this file before anything else is compiled; it is linked into nothing. */
#if !__has_include(<nng/nng.h>)
#error "nng is missing. On Debian: apt-get install libnng-dev"
#endif
#if !__has_include(<cjson/cJSON.h>)
#error "cJSON is missing. On Debian: apt-get install libcjson-dev"
#endif
#if !__has_include(<png.h>)
#error "libpng is missing. On Debian: apt-get install libpng-dev"
#endif
#if !__has_include(<pcre2.h>)
#error "PCRE2 is missing. On Debian: apt-get install libpcre2-dev"
#endif
#if !__has_include(<utf8proc.h>)
#error "utf8proc is missing. On Debian: apt-get install libutf8proc-dev"
#endif
#if !__has_include(<sqlite3.h>)
#error "SQLite is missing. On Debian: apt-get install libsqlite3-dev"
#endif
#if !__has_include(<cblas.h>)
#error "OpenBLAS is missing. On Debian: apt-get install libopenblas-dev"
#endif
#if !__has_include(<zlib.h>)
#error "zlib is missing. On Debian: apt-get install zlib1g-dev"
#endif
#if !__has_include(<jpeglib.h>)
#error "libjpeg is missing. On Debian: apt-get install libjpeg-dev"
#endif
#if !__has_include(<webp/demux.h>)
#error "libwebp is missing. On Debian: apt-get install libwebp-dev"
#endif
#if !__has_include(<tiffio.h>)
#error "libtiff is missing. On Debian: apt-get install libtiff-dev"
#endif
#if !__has_include(<avif/avif.h>)
#error "libavif is missing. On Debian: apt-get install libavif-dev"
#endif
#if !__has_include(<libheif/heif.h>)
#error "libheif is missing. On Debian: apt-get install libheif-dev"
#endif
#if !__has_include(<libavformat/avformat.h>)
#error "libavformat is missing. On Debian: apt-get install libavformat-dev"
#endif
#if !__has_include(<libavcodec/avcodec.h>)
#error "libavcodec is missing. On Debian: apt-get install libavcodec-dev"
#endif
#if !__has_include(<libavutil/avutil.h>)
#error "libavutil is missing. On Debian: apt-get install libavutil-dev"
#endif
#if !__has_include(<libswscale/swscale.h>)
#error "libswscale is missing. On Debian: apt-get install libswscale-dev"
#endif

// mdBook turns each link to a Markdown file into one to a page. Guides and documents outside of the
// book are no pages.
for (const link of document.querySelectorAll('main a[href^="../../"]')) {
    link.href = link.href.replace(/\.html(#|$)/, ".md$1");
}
